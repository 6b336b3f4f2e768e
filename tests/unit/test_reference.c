/* test_reference.c: three letters that follow the rule that SQL follows too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "otp/reference.h"

static void write(unsigned number, char text[static REFERENCE_TEXT + 1])
{
	unsigned char id[TOKEN_ID_BYTES];

	memset(id, 0xA5, sizeof(id));
	id[13] = (unsigned char)(number >> 16);
	id[14] = (unsigned char)(number >> 8);
	id[15] = (unsigned char)number;
	reference_write(id, text);
}

static void the_last_three_bytes_as_decimal_letters(void **state)
{
	static const struct {
		unsigned number;
		const char *text;
	} cases[] = {{0, "CCC"},   {1, "CCD"},   {9, "CCX"},    {10, "CDC"},    {123, "DHJ"},     {456, "MPR"},
		     {789, "TWX"}, {998, "XXW"}, {1000, "CCC"}, {65536, "PJR"}, {16777215, "HDP"}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char text[REFERENCE_TEXT + 1];

		write(cases[i].number, text);
		assert_string_equal(text, cases[i].text);
	}
}

static void nothing_else_of_the_id_counts(void **state)
{
	unsigned char id[TOKEN_ID_BYTES] = {0};
	char text[REFERENCE_TEXT + 1];

	(void)state;
	for (size_t i = 0; i < TOKEN_ID_BYTES; i++) {
		id[i] = 1;
		reference_write(id, text);
		assert_int_equal(strcmp(text, "CCC") == 0, i < 13);
		id[i] = 0;
	}
}

static void all_thousand_come_equally_often(void **state)
{
	enum { ALL = 1U << 24U };
	static unsigned counts[128 * 128 * 128];
	unsigned different = 0;
	char text[REFERENCE_TEXT + 1];

	(void)state;
	for (unsigned number = 0; number < ALL; number++) {
		unsigned *count;

		write(number, text);
		count = &counts[(text[0] * 128 + text[1]) * 128 + text[2]];
		different += (*count)++ == 0;
	}
	assert_int_equal(different, 1000);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		assert_true(counts[i] == 0 || counts[i] == ALL / 1000 || counts[i] == ALL / 1000 + 1);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_last_three_bytes_as_decimal_letters),
	    cmocka_unit_test(nothing_else_of_the_id_counts),
	    cmocka_unit_test(all_thousand_come_equally_often),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
