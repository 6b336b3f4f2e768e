/* test_origin.c: what a browser can send as Origin, and what would never match. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "otp/origin.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void origins_of_browsers(void **state)
{
	static const char *const right[] = {
	    "https://shop.example",  "http://localhost:3000", "http://127.0.0.1:8080",
	    "https://[2001:db8::1]", "https://[::1]:8443",    "https://xn--bcher-kva.example",
	    "capacitor://localhost", "https://a-b.example:1", "https://a.example:65535",
	    "http://a.example:443",  "https://a.example:80",  "chrome-extension://abcdefghijklmnopabcdefghijklmnop"};

	(void)state;
	for (size_t i = 0; i < COUNT(right); i++)
		if (!origin_is(right[i]))
			fail_msg("refused: %s", right[i]);
}

static void what_would_never_match(void **state)
{
	static const char *const wrong[] = {"",
					    "null",
					    "*",
					    "shop.example",
					    "//shop.example",
					    "https:",
					    "https://",
					    "https:/shop.example",
					    "https://shop.example/",
					    "https://shop.example/app",
					    "https://shop.example?",
					    "https://shop.example#",
					    "https://Shop.example",
					    "HTTPS://shop.example",
					    "https://shop.example:443",
					    "http://shop.example:80",
					    "https://shop.example:",
					    "https://shop.example:0",
					    "https://shop.example:08",
					    "https://shop.example:65536",
					    "https://shop.example:123456",
					    "https://shop.example:99999999999999999999",
					    "https://shop.example:80a",
					    "https://*.shop.example",
					    "https://.example",
					    "https://-a.example",
					    "https://user@shop.example",
					    "https://b\xC3\xBC"
					    "cher.example",
					    "https://[]",
					    "https://[::1",
					    "https://[::1]x",
					    "https://[localhost]",
					    "://shop.example",
					    "1https://shop.example",
					    " https://shop.example",
					    "https://shop.example ",
					    "https://a_b.example"};

	(void)state;
	for (size_t i = 0; i < COUNT(wrong); i++)
		if (origin_is(wrong[i]))
			fail_msg("taken: %s", wrong[i]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(origins_of_browsers),
	    cmocka_unit_test(what_would_never_match),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
