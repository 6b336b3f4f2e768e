/* test_locale.c: which language somebody gets who asks for another, in a member or in a header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "otp/locale.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *const shipped[] = {"ar", "de", "en", "pt-BR", "zh-Hans", "zh-Hant", "sr-Latn-RS", "sr-Latn"};

static const char *tag_of(const void *context, size_t i)
{
	return ((const char *const *)context)[i];
}

static const char *choose(const char *wanted)
{
	size_t found = locale_choose(wanted, COUNT(shipped), tag_of, shipped);

	return found < COUNT(shipped) ? shipped[found] : "none";
}

static void the_closest_is_chosen(void **state)
{
	static const struct {
		const char *wanted, *expected;
	} cases[] = {
	    {"pt-BR", "pt-BR"},
	    {"pt", "pt-BR"},
	    {"pt-PT", "pt-BR"},
	    {"PT-br", "pt-BR"},
	    {"pt-BR-x-y", "pt-BR"},
	    {"zh-HK", "zh-Hant"},
	    {"zh-TW", "zh-Hant"},
	    {"zh-MO-x", "zh-Hant"},
	    {"zh-CN", "zh-Hans"},
	    {"zh", "zh-Hans"},
	    {"zh-SG", "zh-Hans"},
	    {"zh-Hant-HK", "zh-Hant"},
	    {"zh-Hans-TW", "zh-Hans"},
	    {"de-CH-1996", "de"},
	    {"en-GB", "en"},
	    {"sr-Latn-RS-x", "sr-Latn-RS"},
	    {"sr", "sr-Latn"},
	    {"fr", "none"},
	    {"p", "none"},
	    {"e", "none"},
	    {"zhx", "none"},
	    {"fr,de", "de"},
	    {"fr,it,zh-TW", "zh-Hant"},
	    {"", "none"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		if (strcmp(choose(cases[i].wanted), cases[i].expected) != 0)
			fail_msg("%s: %s, not %s", cases[i].wanted, choose(cases[i].wanted), cases[i].expected);
	assert_string_equal(choose(NULL), "none");
}

static void chinese_without_its_script_gets_the_other(void **state)
{
	static const char *const simplified[] = {"en", "zh-Hans"};
	static const char *const plain[] = {"en", "zh"};

	(void)state;
	assert_int_equal(locale_choose("zh-HK", 2, tag_of, simplified), 1);
	assert_int_equal(locale_choose("zh-HK", 2, tag_of, plain), 1);
}

static void tags_are_read_as_people_write_them(void **state)
{
	static const struct {
		const char *text, *expected;
	} cases[] = {
	    {"pt-BR", "pt-BR"},
	    {"zh_TW.UTF-8", "zh-TW"},
	    {"de_DE@euro", "de-DE"},
	    {"en", "en"},
	    {"", NULL},
	    {"-", NULL},
	    {"en-", NULL},
	    {"e--n", NULL},
	    {"../en", NULL},
	    {"en/..", NULL},
	    {"\xD9\xA1", NULL},
	    {"en us", NULL},
	    {"en,de", NULL},
	    {"abcdefghijklmnopqrstuvwxyzabcdefghi", "abcdefghijklmnopqrstuvwxyzabcdefghi"},
	    {"abcdefghijklmnopqrstuvwxyzabcdefghij", NULL},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char out[LOCALE_BYTES] = "before";
		enum result result = locale_read(out, cases[i].text, strlen(cases[i].text));

		assert_int_equal(result, cases[i].expected != NULL ? RESULT_OK : RESULT_INVALID);
		assert_string_equal(out, cases[i].expected != NULL ? cases[i].expected : "before");
	}
}

static void a_header_is_read_by_weight(void **state)
{
	static const struct {
		const char *header, *expected;
	} cases[] = {
	    {"de", "de"},
	    {"pt-PT,pt;q=0.9,en;q=0.8", "pt-PT,pt,en"},
	    {"en;q=0.1, de;q=0.9 , fr", "fr,de,en"},
	    {"a;q=0.1,b;q=0.2,c;q=0.3,d;q=0.4", "d,c,b"},
	    {"*, de;q=0.5", "de"},
	    {"en;q=0, de;q=0.001", "de"},
	    {"en;q=2, de;q=x, fr;q=1.000", "fr"},
	    {",,, ,de,", "de"},
	    {"", NULL},
	    {"*", NULL},
	    {";q=1", NULL},
	    {"evil/../x", NULL},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char out[LOCALE_BYTES];
		enum result result = locale_read_header(out, cases[i].header);

		assert_int_equal(result, cases[i].expected != NULL ? RESULT_OK : RESULT_INVALID);
		if (cases[i].expected != NULL)
			assert_string_equal(out, cases[i].expected);
	}
}

static void a_long_header_fits(void **state)
{
	char header[4 * 36 * 100] = "";
	char out[LOCALE_BYTES];

	(void)state;
	for (int i = 0; i < 100; i++)
		(void)strcat(header, "abcdefghijklmnopqrstuvwxyzabcdefghi,");
	assert_int_equal(locale_read_header(out, header), RESULT_OK);
	assert_int_equal(strlen(out), 3 * 35 + 2);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_closest_is_chosen),
	    cmocka_unit_test(chinese_without_its_script_gets_the_other),
	    cmocka_unit_test(tags_are_read_as_people_write_them),
	    cmocka_unit_test(a_header_is_read_by_weight),
	    cmocka_unit_test(a_long_header_fits),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
