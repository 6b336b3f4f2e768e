/* fuzz_token.c: A2: a token has one spelling, which reads as what was written, and one id. */
#include "fuzz.h"
#include "otp/token.h"

static void check_id(const unsigned char *token)
{
	unsigned char id[TOKEN_ID_BYTES];
	char text[TOKEN_ID_TEXT + 1];
	token_id(token, id);
	token_id_write(id, text);
	FUZZ_ASSERT(memcmp(id, token, 6) == 0); /* the time */
	FUZZ_ASSERT(strlen(text) == TOKEN_ID_TEXT && text[strspn(text, "0123456789abcdef-")] == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned char token[TOKEN_BYTES] = {0};
	unsigned char again[TOKEN_BYTES];
	char text[TOKEN_TEXT + 1];
	if (token_read(token, (const char *)data, size) == RESULT_OK) {
		token_write(token, text);
		FUZZ_ASSERT(size == TOKEN_TEXT && memcmp(text, data, size) == 0);
	}
	memcpy(token, data, size < sizeof(token) ? size : sizeof(token));
	token_write(token, text);
	FUZZ_ASSERT(token_read(again, text, strlen(text)) == RESULT_OK);
	FUZZ_ASSERT(memcmp(again, token, sizeof(token)) == 0);
	check_id(token);
	return 0;
}
