/* test_text.c: text in a fixed buffer never runs over, and what does not fit is left out whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/text.h"

static void text_grows_until_it_is_full(void **state)
{
	char bytes[8];
	struct text text;

	(void)state;
	text_init(&text, bytes, sizeof(bytes));
	assert_string_equal(bytes, "");
	text_put(&text, "abc");
	text_put_bytes(&text, "defgh", 4);
	assert_string_equal(bytes, "abcdefg");
	assert_int_equal(text.length, 7);
	assert_false(text.is_full);
	text_put(&text, "");
	assert_false(text.is_full);
	text_put(&text, "h");
	assert_true(text.is_full);
	assert_string_equal(bytes, "abcdefg");
}

static void nothing_follows_what_did_not_fit(void **state)
{
	char bytes[8];
	struct text text;

	(void)state;
	text_init(&text, bytes, sizeof(bytes));
	text_put(&text, "abcd");
	text_put(&text, "efgh");
	text_put(&text, "e");
	text_printf(&text, "%d", 1);
	assert_true(text.is_full);
	assert_string_equal(bytes, "abcd");
	text_cut(&text, 2);
	text_put(&text, "e");
	assert_false(text.is_full);
	assert_string_equal(bytes, "abe");
}

static void formatted_text_is_whole_or_absent(void **state)
{
	/* At every size, with a mark behind the buffer that must stay. */
	for (size_t size = 1; size < 16; size++) {
		char bytes[32];
		struct text text;

		memset(bytes, 'x', sizeof(bytes));
		text_init(&text, bytes, size);
		text_printf(&text, "%s=%d", "name", 4711);
		assert_string_equal(bytes, size > 9 ? "name=4711" : "");
		assert_int_equal(text.is_full, size <= 9);
		assert_int_equal(text.length, size > 9 ? 9 : 0);
		assert_int_equal(bytes[size], 'x');
	}
	(void)state;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(text_grows_until_it_is_full),
	    cmocka_unit_test(nothing_follows_what_did_not_fit),
	    cmocka_unit_test(formatted_text_is_whole_or_absent),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
