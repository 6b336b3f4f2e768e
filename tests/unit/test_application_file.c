/* test_application_file.c: what the file of the applications may say, and the complaint about each thing it may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/complaint.h"
#include "otp/applications.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define DAY_MS 86400000ULL
#define TODAY_MS (20500 * DAY_MS) /* 2026-02-16 */

#define HASH_A "52c0dffbb98fab59cdf6107394c91b88e036c4a7e76b4019b4d7d2f683bbb3fc"
#define HASH_B "0000000000000000000000000000000000000000000000000000000000000001"

static char path[] = "/tmp/otpd-test-XXXXXX";
static struct settings settings;
static char output[16384]; /* what the last load complained of */

static int make_file(void **state)
{
	int fd;

	(void)state;
	memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
	fd = mkstemp(path);
	settings = (struct settings){
	    .applications = path,
	    .app_name = "OTP",
	    .email_subject = "Your code",
	    .email_from = {"", "otp@example.com"},
	    .template_dir = "/templates",
	    .locale = "de",
	    .expire_minutes = 10,
	    .password_length = 6,
	    .max_attempts = 5,
	    .resend_seconds = 60,
	    .sends_per_hour = 5,
	    .sends_per_day = 11,
	    .budget_per_hour = 1000,
	};
	complaint_start("otp-test");
	return fd < 0 || close(fd) != 0;
}

static int remove_file(void **state)
{
	(void)state;
	return settings.applications == path && unlink(path) != 0;
}

static void put(const char *text, size_t length)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
}

/* Loads, and catches the complaints. */
static enum result load(struct applications **set, uint64_t today_ms, bool is_again)
{
	int saved = dup(STDERR_FILENO);
	int file = memfd_create("output", 0);
	enum result result;
	ssize_t count;

	(void)fflush(stderr);
	(void)dup2(file, STDERR_FILENO);
	result = is_again ? applications_reload(set, &settings) : applications_load(set, &settings, today_ms);
	(void)fflush(stderr);
	(void)dup2(saved, STDERR_FILENO);
	(void)close(saved);
	count = pread(file, output, sizeof(output) - 1, 0);
	output[count < 0 ? 0 : count] = '\0';
	(void)close(file);
	return result;
}

static struct applications *loaded(const char *text)
{
	struct applications *set = NULL;

	put(text, strlen(text));
	if (load(&set, TODAY_MS, false) != RESULT_OK)
		fail_msg("%s: %s", text, output);
	assert_string_equal(output, "");
	return set;
}

static const struct application *find(const struct applications *set, const char *name)
{
	return applications_find(set, name, strlen(name));
}

/* One complaint, of the file and what is given. */
static void assert_refused(const char *text, const char *complaint)
{
	struct applications *set = NULL;
	char expected[2048];

	put(text, strlen(text));
	if (load(&set, TODAY_MS, false) != RESULT_INVALID)
		fail_msg("taken: %s", text);
	assert_null(set);
	(void)snprintf(expected, sizeof(expected), "otp-test: %s: %s\n", path, complaint);
	assert_string_equal(output, expected);
}

static void assert_as_settings_say(const struct application *application)
{
	assert_string_equal(application->app_name, "OTP");
	assert_string_equal(application->subject, "Your code");
	assert_string_equal(application->email_from.address, "otp@example.com");
	assert_string_equal(application->reply_to.address, "");
	assert_string_equal(application->templates, "/templates");
	assert_string_equal(application->locale, "de");
	assert_int_equal(application->expire_minutes, 10);
	assert_int_equal(application->password_length, 6);
	assert_int_equal(application->max_attempts, 5);
	assert_int_equal(application->resend_seconds, 60);
	assert_int_equal(application->sends_per_hour, 5);
	assert_int_equal(application->sends_per_day, 11);
	assert_int_equal(application->budget_per_hour, 1000);
	assert_false(application->is_budget_for_keys);
	assert_true(application->is_public);
	assert_null(application->origins.text);
	assert_null(application->purposes.text);
	assert_null(application->domains_allow.name);
	assert_null(application->domains_deny.name);
	assert_int_equal(application->keys.count + application->tests.count, 0);
}

static void without_a_file_there_is_the_default_one(void **state)
{
	struct applications *set = NULL;

	(void)state;
	(void)unlink(path);
	settings.applications = "";
	assert_int_equal(load(&set, TODAY_MS, false), RESULT_OK);
	assert_int_equal(applications_count(set), 1);
	assert_string_equal(applications_default(set)->name, "default");
	assert_true(applications_default(set)->is_default);
	assert_as_settings_say(applications_default(set));
	applications_free(set);
}

static void what_is_absent_comes_from_the_settings(void **state)
{
	struct applications *set = loaded("{\"shop\": {}}");

	(void)state;
	assert_int_equal(applications_count(set), 2);
	assert_as_settings_say(find(set, "shop"));
	assert_string_equal(find(set, "shop")->name, "shop");
	assert_false(find(set, "shop")->is_default);
	assert_as_settings_say(applications_default(set));
	applications_free(set);
	set = loaded("{}");
	assert_int_equal(applications_count(set), 1);
	assert_as_settings_say(applications_default(set));
	applications_free(set);
	set = loaded("{\"default\": {\"app_name\": \"Shop\"}, \"x\": {}}");
	assert_int_equal(applications_count(set), 2);
	assert_string_equal(applications_default(set)->app_name, "Shop");
	assert_string_equal(find(set, "x")->app_name, "OTP");
	assert_true(applications_default(set)->is_default);
	applications_free(set);
}

static void every_member_is_read(void **state)
{
	struct applications *set = loaded(
	    "{\"shop\": {\"app_name\": \"Caf\xC3\xA9\", \"email_from\": \"Caf\xC3\xA9 <a@shop.example>\","
	    " \"reply_to\": \"Help <help@shop.example>\", \"subject\": \"{{code}}\", \"templates\": \"/t\","
	    " \"locale\": \"pt_BR\", \"expire_minutes\": 15, \"password_length\": 8, \"max_attempts\": 3,"
	    " \"resend_seconds\": 0, \"sends_per_hour\": 7, \"sends_per_day\": 1e2, \"budget_per_hour\": 0,"
	    " \"public\": true, \"origins\": [\"https://shop.example\"], \"key_hashes\": [\"" HASH_A "\", \"" HASH_B
	    "\"], \"purposes\": [\"sign-in\", \"verify\"], \"domains_allow\": [\"B\xC3\xBC"
	    "cher.Example\", \"*.Example.org\", \"*.edu\"], \"domains_deny\": [\"bad.example.org\"],"
	    " \"test_addresses\": {\"Re.Viewer+x@gmail.com\": {\"code\": \"12345678\", \"until\": \"2026-02-16\"}}}}");
	const struct application *shop = find(set, "shop");
	unsigned char hash[API_KEY_HASH_BYTES];

	(void)state;
	assert_string_equal(shop->app_name, "Caf\xC3\xA9");
	assert_string_equal(shop->email_from.name, "Caf\xC3\xA9");
	assert_string_equal(shop->email_from.address, "a@shop.example");
	assert_string_equal(shop->reply_to.name, "Help");
	assert_string_equal(shop->reply_to.address, "help@shop.example");
	assert_string_equal(shop->subject, "{{code}}");
	assert_string_equal(shop->templates, "/t");
	assert_string_equal(shop->locale, "pt-BR");
	assert_int_equal(shop->expire_minutes, 15);
	assert_int_equal(shop->password_length, 8);
	assert_int_equal(shop->max_attempts, 3);
	assert_int_equal(shop->resend_seconds, 0);
	assert_int_equal(shop->sends_per_hour, 7);
	assert_int_equal(shop->sends_per_day, 100);
	assert_int_equal(shop->budget_per_hour, 0);
	assert_true(shop->is_budget_for_keys);
	assert_true(shop->is_public);
	assert_int_equal(shop->origins.count, 1);
	assert_string_equal(shop->origins.text[0], "https://shop.example");
	assert_int_equal(shop->purposes.count, 2);
	assert_string_equal(shop->purposes.text[1], "verify");
	assert_int_equal(shop->keys.count, 2);
	assert_int_equal(api_key_hash_read(hash, HASH_A, 64), RESULT_OK);
	assert_ptr_equal(applications_find_key(set, hash), shop);
	assert_int_equal(shop->domains_allow.count, 3);
	assert_string_equal(shop->domains_allow.name[0], "xn--bcher-kva.example");
	assert_string_equal(shop->domains_allow.name[1], "*.example.org");
	assert_string_equal(shop->domains_allow.name[2], "*.edu");
	assert_int_equal(shop->domains_deny.count, 1);
	assert_string_equal(shop->domains_deny.name[0], "bad.example.org");
	assert_int_equal(shop->tests.count, 1);
	assert_string_equal(shop->tests.test[0].mailbox, "reviewer@gmail.com");
	assert_string_equal(application_test_code(shop, "reviewer@gmail.com", TODAY_MS + DAY_MS - 1), "12345678");
	assert_null(application_test_code(shop, "reviewer@gmail.com", TODAY_MS + DAY_MS));
	applications_free(set);
}

static void empty_values_mean_none(void **state)
{
	struct applications *set = loaded("{\"a\": {\"reply_to\": \"\", \"locale\": \"\", \"origins\": [],"
					  " \"key_hashes\": [], \"test_addresses\": {}}}");

	(void)state;
	assert_string_equal(find(set, "a")->reply_to.address, "");
	assert_string_equal(find(set, "a")->locale, "");
	assert_false(application_allows_origin(find(set, "a"), "https://shop.example", 20));
	assert_true(find(set, "a")->is_public);
	applications_free(set);
}

static void who_has_keys_is_public_only_if_told_so(void **state)
{
	static const struct {
		const char *members;
		bool is_public;
	} cases[] = {
	    {"", true},
	    {"\"public\": false", false},
	    {"\"key_hashes\": [\"" HASH_A "\"]", false},
	    {"\"key_hashes\": [\"" HASH_A "\"], \"public\": false", false},
	    {"\"public\": true, \"key_hashes\": [\"" HASH_A "\"]", true},
	};
	static const char *const names[] = {"default", "shop"};

	(void)state;
	for (size_t i = 0; i < 2 * COUNT(cases); i++) {
		struct applications *set;
		char text[256];

		(void)snprintf(text, sizeof(text), "{\"%s\": {%s}}", names[i % 2], cases[i / 2].members);
		set = loaded(text);
		assert_int_equal(find(set, names[i % 2])->is_public, cases[i / 2].is_public);
		applications_free(set);
	}
}

static void every_wrong_member_is_named_with_its_fix(void **state)
{
	static const struct {
		const char *members, *complaint;
	} cases[] = {
#define TEXT ": must be a text in quotes"
	    {"\"app_name\": 1", ".app_name" TEXT},
	    {"\"app_name\": null", ".app_name" TEXT},
	    {"\"app_name\": \"\"", ".app_name: must not be empty"},
	    {"\"app_name\": \"a\\nb\"", ".app_name=a?b: must be UTF-8 text without control characters"},
	    {"\"email_from\": \"nobody\"", ".email_from=nobody: must be \"address\" or \"Name <address>\", such as "
					   "\"Example <no-reply@example.com>\""},
	    {"\"email_from\": \"\"", ".email_from: must not be empty"},
	    {"\"reply_to\": [\"a@b.example\"]", ".reply_to" TEXT},
	    {"\"reply_to\": \"a@b.example\\r\\nBcc: c@d.example\"",
	     ".reply_to=a@b.example??Bcc: c@d.example: must be UTF-8 text without control characters"},
	    {"\"locale\": \"Deutsch!\"", ".locale=Deutsch!: must be the tag of a language, such as de or pt-BR"},
#define WHOLE(min, max) ": must be a whole number from " min " to " max
	    {"\"expire_minutes\": 0", ".expire_minutes=0" WHOLE("1", "1440")},
	    {"\"expire_minutes\": 1441", ".expire_minutes=1441" WHOLE("1", "1440")},
	    {"\"expire_minutes\": 1.5", ".expire_minutes=1.5" WHOLE("1", "1440")},
	    {"\"expire_minutes\": -1", ".expire_minutes=-1" WHOLE("1", "1440")},
	    {"\"expire_minutes\": 99999999999999999999", ".expire_minutes=1e+20" WHOLE("1", "1440")},
	    {"\"expire_minutes\": \"10\"", ".expire_minutes: must be a number without quotes"},
	    {"\"password_length\": 3", ".password_length=3" WHOLE("4", "12")},
	    {"\"max_attempts\": 101", ".max_attempts=101" WHOLE("1", "100")},
	    {"\"resend_seconds\": 86401", ".resend_seconds=86401" WHOLE("0", "86400")},
	    {"\"sends_per_hour\": 1001", ".sends_per_hour=1001" WHOLE("0", "1000")},
	    {"\"sends_per_day\": true", ".sends_per_day: must be a number without quotes"},
	    {"\"budget_per_hour\": 1000001", ".budget_per_hour=1000001" WHOLE("0", "1000000")},
	    {"\"public\": \"yes\"", ".public: must be true or false"},
#define ORIGIN                                                                          \
	": must be an origin as browsers send it, such as \"https://shop.example\" or " \
	"\"http://localhost:3000\": in small letters, without a path, a slash at its end or a usual port"
	    {"\"origins\": [\"https://a.example\", \"https://b.example/\"]", ".origins[1]" ORIGIN},
	    {"\"origins\": [7]", ".origins[0]" ORIGIN},
	    {"\"origins\": \"https://a.example\"", ".origins: must be a list in brackets"},
#define KEY ": must be the hash that otp-keygen --api-key printed: 64 digits 0 to 9 and a to f"
	    {"\"key_hashes\": [\"otp_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\"]", ".key_hashes[0]" KEY},
	    {"\"key_hashes\": [\"" HASH_A "\", null]", ".key_hashes[1]" KEY},
	    {"\"key_hashes\": {}", ".key_hashes: must be a list in brackets"},
#define PURPOSE ": must be a purpose, such as \"sign-in\": 1 to 32 characters of a to z, 0 to 9 and \"-\""
	    {"\"purposes\": [\"sign-in\", \"Sign in\"]", ".purposes[1]" PURPOSE},
#define NOT_EMPTY ": must be a list in brackets that is not empty: leave it out for no such rule"
	    {"\"purposes\": []", ".purposes" NOT_EMPTY},
	    {"\"domains_allow\": []", ".domains_allow" NOT_EMPTY},
	    {"\"domains_deny\": \"example.com\"", ".domains_deny" NOT_EMPTY},
#define DOMAIN ": must be a domain, such as \"example.com\", or \"*.example.com\" for all below it"
	    {"\"domains_allow\": [\"a@example.com\"]", ".domains_allow[0]" DOMAIN},
	    {"\"domains_deny\": [\"example.com\", \"*example.com\"]", ".domains_deny[1]" DOMAIN},
	    {"\"domains_deny\": [\"*\"]", ".domains_deny[0]" DOMAIN},
	    {"\"domains_deny\": [\"*.\"]", ".domains_deny[0]" DOMAIN},
	    {"\"domains_deny\": [\"\"]", ".domains_deny[0]" DOMAIN},
	    {"\"domains_deny\": [\"*.*.com\"]", ".domains_deny[0]" DOMAIN},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char text[512], complaint[512];

		(void)snprintf(text, sizeof(text), "{\"shop\": {%s}}", cases[i].members);
		(void)snprintf(complaint, sizeof(complaint), "shop%s", cases[i].complaint);
		assert_refused(text, complaint);
	}
}

static void a22_test_addresses_need_a_code_and_a_day_to_come(void **state)
{
#define CODE ": must have a member \"code\": a text of 6 digits"
#define UNTIL ": must have a member \"until\": the last day (UTC) of its code, such as \"2027-01-31\""
	static const struct {
		const char *entry, *complaint;
	} cases[] = {
	    {"{\"code\": \"123456\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": null}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"2027-1-31\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"2027-02-29\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"2027-04-31\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"2027-00-01\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"2027-13-01\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"2027-01-00\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"2027-01-31T00:00\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"31.01.2027\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"1969-12-31\"}", UNTIL},
	    {"{\"code\": \"123456\", \"until\": \"2026-02-15\"}",
	     ": ended on 2026-02-15: remove it, or give it a later day"},
	    {"{\"until\": \"2027-01-31\"}", CODE},
	    {"{\"code\": 123456, \"until\": \"2027-01-31\"}", CODE},
	    {"{\"code\": \"12345\", \"until\": \"2027-01-31\"}", CODE},
	    {"{\"code\": \"1234567\", \"until\": \"2027-01-31\"}", CODE},
	    {"{\"code\": \"12345a\", \"until\": \"2027-01-31\"}", CODE},
	    {"{\"code\": \"\", \"until\": \"2027-01-31\"}", CODE},
	    {"\"123456\"", CODE},
	    {"[]", CODE},
	    {"{\"code\": \"123456\", \"until\": \"2027-01-31\", \"mail\": true}",
	     ": must have no members but \"code\" and \"until\""},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char text[512], complaint[512];

		(void)snprintf(text, sizeof(text), "{\"shop\": {\"test_addresses\": {\"a@b.example\": %s}}}",
			       cases[i].entry);
		(void)snprintf(complaint, sizeof(complaint), "shop.test_addresses[\"a@b.example\"]%s",
			       cases[i].complaint);
		assert_refused(text, complaint);
	}
#define ENTRY "{\"code\": \"123456\", \"until\": \"2027-01-31\"}"
	assert_refused("{\"shop\": {\"test_addresses\": {\"a@b.example\": " ENTRY ", \"A+x@b.example\": " ENTRY "}}}",
		       "shop.test_addresses[\"A+x@b.example\"]: is the mailbox of another entry: remove one");
	assert_refused("{\"shop\": {\"test_addresses\": [\"a@b.example\"]}}",
		       "shop.test_addresses: must be an object with an entry for each address");
	assert_refused("{\"shop\": {\"test_addresses\": {\"nobody\": " ENTRY "}}}",
		       "shop.test_addresses[\"nobody\"]: must be an email address: It has no @.");
	applications_free(loaded("{\"shop\": {\"test_addresses\": {\"a@b.example\": " ENTRY "}}, \"other\": "
				 "{\"password_length\": 4, \"test_addresses\": {\"a@b.example\": {\"code\": \"1234\","
				 " \"until\": \"2028-02-29\"}}}}"));
}

static void a22_at_run_time_a_day_that_has_passed_is_ignored(void **state)
{
	static const char text[] = "{\"shop\": {\"test_addresses\": {\"a@b.example\": {\"code\": \"123456\","
				   " \"until\": \"2026-02-15\"}}}}";
	struct applications *set = NULL;

	(void)state;
	put(text, strlen(text));
	assert_int_equal(load(&set, 0, false), RESULT_OK);
	assert_null(application_test_code(find(set, "shop"), "a@b.example", TODAY_MS));
	assert_non_null(application_test_code(find(set, "shop"), "a@b.example", TODAY_MS - 1));
	applications_free(set);
}

static void a_code_of_any_length_where_the_length_is_not_known(void **state)
{
	static const char *const codes[] = {"123", "1234", "123456789012", "1234567890123"};

	(void)state;
	settings.password_length = 0; /* of otp-validate and otp-worker */
	for (size_t i = 0; i < COUNT(codes); i++) {
		struct applications *set = NULL;
		char text[256];

		(void)snprintf(text, sizeof(text),
			       "{\"a\": {\"test_addresses\": {\"a@b.example\": {\"code\": \"%s\", \"until\": "
			       "\"2027-01-31\"}}}}",
			       codes[i]);
		put(text, strlen(text));
		assert_int_equal(load(&set, TODAY_MS, false), i == 1 || i == 2 ? RESULT_OK : RESULT_INVALID);
		applications_free(set);
	}
}

static void wrong_names_are_refused(void **state)
{
#define KNOWN                                                                                                 \
	" is unknown; there are app_name, email_from, reply_to, subject, templates, locale, expire_minutes, " \
	"password_length, max_attempts, resend_seconds, sends_per_hour, sends_per_day, budget_per_hour, "     \
	"public, origins, key_hashes, purposes, domains_allow, domains_deny, test_addresses"
#define NAME ": the name of an application must be 1 to 32 characters of a to z, 0 to 9 and \"-\""
	(void)state;
	assert_refused("{\"shop\": {\"appname\": \"x\"}}", "shop.appname:" KNOWN);
	assert_refused("{\"Shop\": {}}", "Shop" NAME);
	assert_refused("{\"\": {}}", NAME);
	assert_refused("{\"shop\": []}", "shop: must be an object with the members of the application");
	assert_refused("{\"shop\": null}", "shop: must be an object with the members of the application");
}

static void all_that_is_wrong_is_named_at_once(void **state)
{
	static const char text[] = "{\"a\": {\"x\": 1, \"expire_minutes\": 0}, \"b\": {\"public\": 1}}";
	struct applications *set = NULL;

	(void)state;
	put(text, strlen(text));
	assert_int_equal(load(&set, TODAY_MS, false), RESULT_INVALID);
	assert_non_null(strstr(output, "a.x: "));
	assert_non_null(strstr(output, "a.expire_minutes=0: "));
	assert_non_null(strstr(output, "b.public: "));
}

static void a21_a_key_is_for_one_application(void **state)
{
	(void)state;
	assert_refused("{\"a\": {\"key_hashes\": [\"" HASH_B "\"]}, \"b\": {\"key_hashes\": [\"" HASH_A "\", \"" HASH_B
		       "\"]}}",
		       "b.key_hashes[1]: is also a key of a: a key is for one application, remove it from the other");
	assert_refused("{\"a\": {\"key_hashes\": [\"" HASH_A "\", \"" HASH_A "\"]}}",
		       "a.key_hashes[1]: is also a key of a: a key is for one application, remove it from the other");
}

static void what_is_no_such_file_is_refused(void **state)
{
	static const char whole[] = "{\"shop\": {\"app_name\": \"Shop\", \"public\": true}}";
	struct applications *set = NULL;

	(void)state;
	for (size_t length = 0; length < sizeof(whole) - 1; length++) { /* half-written */
		put(whole, length);
		assert_int_equal(load(&set, TODAY_MS, false), RESULT_INVALID);
		assert_non_null(strstr(output, ": must be an object with a member for each application: it "));
	}
	assert_refused("[]", "must be an object with a member for each application: it must be a JSON object");
	assert_refused("{\"a\": {}, \"a\": {}}", "must be an object with a member for each application: a name stands "
						 "twice in an object, at line 1, column 13");
	(void)unlink(path);
	assert_int_equal(load(&set, TODAY_MS, false), RESULT_INVALID);
	assert_non_null(strstr(output, ": No such file or directory: check APPLICATIONS\n"));
	settings.applications = "/tmp";
	assert_int_equal(load(&set, TODAY_MS, false), RESULT_INVALID);
	assert_non_null(strstr(output, "otp-test: /tmp: Is a directory: check APPLICATIONS\n"));
}

static void a_reload_that_fails_keeps_the_old_ones(void **state)
{
	static const char *const wrong[] = {"", "{\"shop\": {\"app_name\": \"New\"}", "{\"shop\": {\"app_name\": 1}}"};
	struct applications *set = loaded("{\"shop\": {\"app_name\": \"Old\"}}");
	static const char right[] = "{\"shop\": {\"app_name\": \"New\"}}";

	(void)state;
	for (size_t i = 0; i < COUNT(wrong); i++) {
		struct applications *before = set;

		put(wrong[i], strlen(wrong[i]));
		assert_int_equal(load(&set, 0, true), RESULT_INVALID);
		assert_ptr_equal(set, before);
		assert_string_equal(find(set, "shop")->app_name, "Old");
		assert_string_not_equal(output, "");
	}
	put(right, strlen(right));
	assert_int_equal(load(&set, 0, true), RESULT_OK);
	assert_string_equal(find(set, "shop")->app_name, "New");
	applications_free(set);
}

static void a25_no_code_and_no_key_is_in_a_complaint(void **state)
{
	struct applications *set = NULL;
	static const char text[] = "{\"a\": {\"key_hashes\": [\"otp_CANARY\"], \"test_addresses\": {\"a@b.example\": "
				   "{\"code\": \"CANARY\", \"until\": \"CANARY\"}}}}";

	(void)state;
	put(text, strlen(text));
	assert_int_equal(load(&set, TODAY_MS, false), RESULT_INVALID);
	assert_null(strstr(output, "CANARY"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_file, remove_file)

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    TEST(without_a_file_there_is_the_default_one),
	    TEST(what_is_absent_comes_from_the_settings),
	    TEST(every_member_is_read),
	    TEST(empty_values_mean_none),
	    TEST(who_has_keys_is_public_only_if_told_so),
	    TEST(every_wrong_member_is_named_with_its_fix),
	    TEST(a22_test_addresses_need_a_code_and_a_day_to_come),
	    TEST(a22_at_run_time_a_day_that_has_passed_is_ignored),
	    TEST(a_code_of_any_length_where_the_length_is_not_known),
	    TEST(wrong_names_are_refused),
	    TEST(all_that_is_wrong_is_named_at_once),
	    TEST(a21_a_key_is_for_one_application),
	    TEST(what_is_no_such_file_is_refused),
	    TEST(a_reload_that_fails_keeps_the_old_ones),
	    TEST(a25_no_code_and_no_key_is_in_a_complaint),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
