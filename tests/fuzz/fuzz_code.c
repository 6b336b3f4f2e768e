/* fuzz_code.c: A26: what is taken for a code is its digits and nothing else, whatever marks stand around them. */
#include "fuzz.h"
#include "otp/code.h"

#define LONGEST 4096U

/* Invisible marks, spaces and dashes of several kinds. */
static const char marks[] = " \t\f\xC2\xA0\xE2\x80\xAA\xE2\x81\xA9\xEF\xBB\xBF\xE3\x80\x80-\xEF\xBC\x8D";

static void check_same(const char *text, size_t length, enum result result, const char *code)
{
	char again[CODE_MAX + 1] = "";
	FUZZ_ASSERT(code_read(again, text, length) == result);
	FUZZ_ASSERT(strcmp(again, code) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[LONGEST + 2 * sizeof(marks)];
	char code[CODE_MAX + 1] = "";
	size_t around = sizeof(marks) - 1;
	if (size > LONGEST)
		return 0;
	enum result result = code_read(code, (const char *)data, size);
	FUZZ_ASSERT(result == RESULT_OK || (result == RESULT_INVALID && code[0] == '\0'));
	memcpy(text, marks, around);
	memcpy(text + around, data, size);
	memcpy(text + around + size, marks, around);
	check_same(text, around + size + around, result, code);
	if (result != RESULT_OK)
		return 0;
	FUZZ_ASSERT(strlen(code) >= CODE_MIN && code[strspn(code, "0123456789")] == '\0');
	check_same(code, strlen(code), RESULT_OK, code);
	return 0;
}
