/* test_application.c: what an application allows, whose a key is, and which test address has a code until when. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "otp/application_file.h"
#include "otp/applications.h"

static bool origin(const struct application *application, const char *text)
{
	return application_allows_origin(application, text, strlen(text));
}

static bool purpose(const struct application *application, const char *text)
{
	return application_allows_purpose(application, text, text != NULL ? strlen(text) : 0);
}

static void without_lists_anything_goes(void **state)
{
	static const struct application application;

	(void)state;
	assert_true(origin(&application, "https://evil.example"));
	assert_true(purpose(&application, "sign-in"));
	assert_true(purpose(&application, NULL));
	assert_true(application_allows_domain(&application, "example.com"));
	assert_null(application_test_code(&application, "a@b.example", 0));
}

static void origins_and_purposes_match_to_the_byte(void **state)
{
	const char *origins[] = {"https://shop.example", "http://localhost:3000"};
	const char *purposes[] = {"sign-in", "verify"};
	struct application application = {.origins = {2, origins}, .purposes = {2, purposes}};

	(void)state;
	assert_true(origin(&application, "https://shop.example"));
	assert_true(origin(&application, "http://localhost:3000"));
	assert_false(origin(&application, "https://shop.example:8443"));
	assert_false(origin(&application, "https://shop.exampl"));
	assert_false(origin(&application, "https://shop.example.evil.example"));
	assert_false(origin(&application, "http://shop.example"));
	assert_false(origin(&application, ""));
	assert_false(origin(&application, "null"));
	application.origins.count = 0; /* an empty list: no page at all */
	assert_false(origin(&application, "https://shop.example"));
	assert_true(purpose(&application, "verify"));
	assert_false(purpose(&application, "verif"));
	assert_false(purpose(&application, "verify2"));
	assert_false(purpose(&application, NULL));
}

static void domains_are_exact_or_below(void **state)
{
	char allow[][ADDRESS_MAX + 1] = {"example.com", "*.example.org"};
	char deny[][ADDRESS_MAX + 1] = {"bad.example.org", "*.bad.example.org"};
	struct application application = {.domains_allow = {2, allow}};
	static const struct {
		const char *domain;
		bool is_allowed, is_denied;
	} cases[] = {
	    {"example.com", true, false},
	    {"mail.example.com", false, false},
	    {"notexample.com", false, false},
	    {"example.org", false, false},
	    {"a.example.org", true, false},
	    {"a.b.example.org", true, false},
	    {"notexample.org", false, false},
	    {"bad.example.org", true, true},
	    {"very.bad.example.org", true, true},
	    {"notbad.example.org", true, false},
	    {"org", false, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		application.domains_deny.count = 0;
		assert_int_equal(application_allows_domain(&application, cases[i].domain), cases[i].is_allowed);
		application.domains_deny = (struct application_domains){2, deny};
		assert_int_equal(application_allows_domain(&application, cases[i].domain),
				 cases[i].is_allowed && !cases[i].is_denied);
	}
}

static void a22_a_test_code_holds_before_its_end_for_its_mailbox(void **state)
{
	struct application_test tests[] = {{"a@b.example", "123456", 1000}, {"c@d.example", "000000", 2000}};
	struct application application = {.tests = {2, tests}};

	(void)state;
	assert_string_equal(application_test_code(&application, "a@b.example", 999), "123456");
	assert_null(application_test_code(&application, "a@b.example", 1000));
	assert_string_equal(application_test_code(&application, "c@d.example", 1999), "000000");
	assert_null(application_test_code(&application, "a@b.exampl", 0));
	assert_null(application_test_code(&application, "A@b.example", 0));
}

static void a20_a_key_is_its_applications(void **state)
{
	unsigned char first[2][API_KEY_HASH_BYTES] = {{1}, {2}}, second[1][API_KEY_HASH_BYTES] = {{3}};
	struct application list[] = {{.name = "shop", .keys = {2, first}}, {.name = "default"}, {.keys = {1, second}}};
	struct applications set = {.count = 3, .application = list};
	unsigned char hash[API_KEY_HASH_BYTES] = {0};

	(void)state;
	for (unsigned char i = 0; i < 5; i++) {
		static const int owners[] = {-1, 0, 0, 2, -1};

		hash[0] = i;
		assert_ptr_equal(applications_find_key(&set, hash), owners[i] < 0 ? NULL : &list[owners[i]]);
	}
	hash[0] = 1;
	hash[API_KEY_HASH_BYTES - 1] = 1;
	assert_null(applications_find_key(&set, hash));
}

static void names_match_to_the_byte(void **state)
{
	struct application list[] = {{.name = "shop"}, {.name = "default"}};
	struct applications set = {.count = 2, .application = list};

	(void)state;
	assert_ptr_equal(applications_find(&set, "shop", 4), &list[0]);
	assert_ptr_equal(applications_find(&set, "shopX", 4), &list[0]);
	assert_null(applications_find(&set, "shop2", 5));
	assert_null(applications_find(&set, "sho", 3));
	assert_null(applications_find(&set, "Shop", 4));
	assert_null(applications_find(&set, "", 0));
	assert_null(applications_find(&set, "shop\0", 5));
	assert_ptr_equal(applications_default(&set), &list[1]);
	assert_int_equal(applications_count(&set), 2);
	assert_ptr_equal(applications_at(&set, 1), &list[1]);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(without_lists_anything_goes),
	    cmocka_unit_test(origins_and_purposes_match_to_the_byte),
	    cmocka_unit_test(domains_are_exact_or_below),
	    cmocka_unit_test(a22_a_test_code_holds_before_its_end_for_its_mailbox),
	    cmocka_unit_test(a20_a_key_is_its_applications),
	    cmocka_unit_test(names_match_to_the_byte),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
