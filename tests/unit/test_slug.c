/* test_slug.c: which texts can name an application or a purpose. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "otp/slug.h"

static void every_byte_in_every_place(void **state)
{
	(void)state;
	for (size_t place = 0; place < 5; place++) {
		for (int byte = 0; byte < 256; byte++) {
			char text[] = "a-z09";

			text[place] = (char)byte;
			assert_int_equal(slug_is(text, 5),
					 byte != 0 && strchr("abcdefghijklmnopqrstuvwxyz0123456789-", byte) != NULL);
		}
	}
}

static void one_to_32_characters(void **state)
{
	static const char text[] = "abcdefghijklmnopqrstuvwxyz0123456789";

	(void)state;
	for (size_t length = 0; length < sizeof(text); length++)
		assert_int_equal(slug_is(text, length), length >= 1 && length <= 32);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_byte_in_every_place),
	    cmocka_unit_test(one_to_32_characters),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
