/* test_texts.c: which text a mail gets, what a text may say, dates, and every text that is shipped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/complaint.h"
#include "mail/message.h"
#include "mail_parts.h"

#define PATH_BYTES 512

static char folder[] = "/tmp/otp-test-texts-XXXXXX";
static char said[8192]; /* complaints */

static int start(void **state)
{
	(void)state;
	complaint_start("test");
	return mkdtemp(folder) == NULL ? -1 : 0;
}

static int finish(void **state)
{
	char command[PATH_BYTES];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -r '%s'", folder);
	return system(command);
}

/* Standard error goes to said until listen_no_more. */
static FILE *kept;

static void listen_to_complaints(void)
{
	memset(said, 0, sizeof(said));
	kept = stderr;
	stderr = fmemopen(said, sizeof(said), "w");
	assert_non_null(stderr);
}

static void listen_no_more(void)
{
	assert_int_equal(fclose(stderr), 0);
	stderr = kept;
}

/* Writes a file below the temporary folder, and the folders on the way to it. */
static void write_text(const char *name, const char *text)
{
	char path[PATH_BYTES];
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
		*slash = '\0';
		(void)mkdir(path, 0700);
	}
	file = fopen(path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void remove_tree(const char *name)
{
	char command[PATH_BYTES];

	(void)snprintf(command, sizeof(command), "rm -rf '%s/%s'", folder, name);
	assert_int_equal(system(command), 0);
}

/* --- Lookup --- */

/* Both trees of a test, and what becomes of them. */
struct trees {
	struct texts own, shared;
	struct texts_choice choice;
};

static enum result load_trees(struct trees *trees, const char *locale)
{
	static char own_path[PATH_BYTES], shared_path[PATH_BYTES];
	enum result result;

	*trees = (struct trees){.own = {.dir = ""}};
	(void)snprintf(own_path, sizeof(own_path), "%s/own", folder);
	(void)snprintf(shared_path, sizeof(shared_path), "%s/shared", folder);
	listen_to_complaints();
	result = texts_load(&trees->shared, shared_path);
	if (result == RESULT_OK && access(own_path, F_OK) == 0)
		result = texts_load(&trees->own, own_path);
	if (result == RESULT_OK)
		result = texts_merge(&trees->choice, &trees->own, &trees->shared, locale);
	listen_no_more();
	assert_true((result == RESULT_OK) == (said[0] == '\0'));
	return result;
}

static void free_trees(struct trees *trees)
{
	texts_choice_free(&trees->choice);
	texts_free(&trees->own);
	texts_free(&trees->shared);
}

/* The texts here say where they are from. */
static void assert_from(const struct template *template, const char *where)
{
	const char *values[TEMPLATE_VALUES];
	char bytes[PATH_BYTES];
	struct text text;

	for (size_t i = 0; i < TEMPLATE_VALUES; i++)
		values[i] = "";
	text_init(&text, bytes, sizeof(bytes));
	if (template != NULL)
		template_fill(template, values, &text);
	assert_string_equal(bytes, where);
}

static void each_file_is_looked_up_for_itself(void **state)
{
	static const struct {
		const char *locale, *purpose, *plain, *html, *heading, *subject;
	} cases[] = {
	    {"en", "", "shared en", "own en html", "shared en heading", ""},
	    {NULL, "", "shared en", "own en html", "shared en heading", ""},
	    {"en", "unknown", "shared en", "own en html", "shared en heading", ""},
	    /* a general text of one's own before a shared one for the purpose */
	    {"en", "sign-in", "shared en sign-in", "own en html", "shared en sign-in heading", ""},
	    {"en", "pay", "own en pay", "own en html", "shared en heading", "own en pay subject"},
	    {"en-GB", "pay", "own en pay", "own en html", "shared en heading", "own en pay subject"},
	    /* a language that only one of them has */
	    {"de", "pay", "shared de", "shared de html", "", "shared de subject"},
	    {"de-CH,en", "sign-in", "shared de", "shared de html", "", "shared de subject"},
	    {"sv", "pay", "own sv", "own sv html", "", ""},
	    {"pt", "", "shared pt-BR", "shared pt-BR html", "", ""},
	    {"xx", "pay", "own en pay", "own en html", "shared en heading", "own en pay subject"},
	};
	struct trees trees;

	(void)state;
	write_text("shared/en/mail.txt", "shared en{{code}}");
	write_text("shared/en/mail.html", "shared en html{{code}}");
	write_text("shared/en/heading.txt", "shared en heading\n");
	write_text("shared/en/sign-in/heading.txt", "shared en sign-in heading\r\n");
	write_text("shared/en/sign-in/mail.txt", "shared en sign-in{{code}}");
	write_text("shared/en/sign-in/mail.html", "never{{code}}");
	write_text("shared/de/mail.txt", "shared de{{code}}");
	write_text("shared/de/mail.html", "shared de html{{code}}");
	write_text("shared/de/subject.txt", "shared de subject");
	write_text("shared/pt-BR/mail.txt", "shared pt-BR{{code}}");
	write_text("shared/pt-BR/mail.html", "shared pt-BR html{{code}}");
	write_text("shared/not_a_tag/mail.txt", "refused if read");
	write_text("shared/en/Not_A_Slug/mail.txt", "refused if read");
	write_text("own/en/mail.html", "own en html{{code}}");
	write_text("own/en/pay/mail.txt", "own en pay{{code}}");
	write_text("own/en/pay/subject.txt", "own en pay subject");
	write_text("own/sv/mail.txt", "own sv{{code}}");
	write_text("own/sv/mail.html", "own sv html{{code}}");
	assert_int_equal(load_trees(&trees, ""), RESULT_OK);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct texts_files *files = texts_choose(&trees.choice, cases[i].locale, cases[i].purpose);

		assert_from(files->plain, cases[i].plain);
		assert_from(files->html, cases[i].html);
		assert_from(files->heading, cases[i].heading);
		assert_from(files->subject, cases[i].subject);
	}
	free_trees(&trees);
	assert_int_equal(load_trees(&trees, "de-CH"), RESULT_OK);
	assert_from(texts_choose(&trees.choice, "xx", "pay")->plain, "shared de");
	assert_from(texts_choose(&trees.choice, NULL, "")->plain, "shared de");
	assert_from(texts_choose(&trees.choice, "en", "")->plain, "shared en");
	free_trees(&trees);
}

static void what_is_missing_is_named(void **state)
{
	struct trees trees;

	(void)state;
	assert_int_equal(load_trees(&trees, "fr"), RESULT_INVALID);
	assert_has(said, "/shared: there is no folder for the locale fr\n");
	free_trees(&trees);
	write_text("own/fr/pay/mail.txt", "{{code}}");
	assert_int_equal(load_trees(&trees, ""), RESULT_INVALID);
	assert_has(said, "/own/fr/mail.txt: No such file or directory\n");
	assert_has(said, "/own/fr/mail.html: No such file or directory\n");
	free_trees(&trees);
	remove_tree("own/fr");
	remove_tree("shared/en");
	remove_tree("own/en");
	assert_int_equal(load_trees(&trees, "de"), RESULT_INVALID);
	assert_has(said, "/shared: there is no folder en\n");
	free_trees(&trees);
	remove_tree("shared");
	assert_int_equal(load_trees(&trees, ""), RESULT_INVALID);
	assert_has(said, "/shared: No such file or directory: set TEMPLATE_DIR, or the templates of the application, "
			 "to a folder of mail texts\n");
	free_trees(&trees);
}

/* One run of --check names everything. */
static void all_that_is_wrong_is_named(void **state)
{
	struct trees trees;

	(void)state;
	write_text("shared/en/mail.txt", "no code");
	write_text("shared/en/mail.html", "<p>\n{{code}}\n{{link}}");
	write_text("shared/en/sign-in/heading.txt", "one\ntwo");
	write_text("shared/en/date.txt", "{{day}}.{{month}}.\nJanuary\n");
	write_text("shared/fr/subject.txt", "{{recipient}}");
	assert_int_equal(load_trees(&trees, ""), RESULT_INVALID);
	assert_has(said, "/shared/en/mail.txt:1: missing: {{code}}\n");
	assert_has(said, "/shared/en/mail.html:3: unknown placeholder; there are {{app_name}} {{code}} {{minutes}} "
			 "{{requested_at}} {{reference}} {{purpose}} {{recipient}} {{heading}}\n");
	assert_has(said, "/shared/en/sign-in/heading.txt:1: not UTF-8 text, or a control character\n");
	assert_has(said, "/shared/en/date.txt:2: must be the months' names, twelve lines, or absent");
	assert_has(said, "/shared/fr/subject.txt:1: this placeholder has no value here; there are {{app_name}}");
	free_trees(&trees);
	remove_tree("shared");
}

/* --- Placeholders --- */

static void each_text_has_its_placeholders(void **state)
{
	static const char *const names[] = {"app_name", "code",      "minutes", "requested_at", "reference",
					    "purpose",  "recipient", "heading", "day",          "month",
					    "year",     "hour",      "minute"};
	static const char *const allowed[] = {
	    [TEMPLATE_OF_SUBJECT] = " app_name code reference purpose ",
	    [TEMPLATE_OF_HEADING] = " app_name purpose ",
	    [TEMPLATE_OF_DATE] = " day month year hour minute ",
	    [TEMPLATE_OF_PLAIN] = " app_name code minutes requested_at reference purpose recipient heading ",
	    [TEMPLATE_OF_HTML] = " app_name code minutes requested_at reference purpose recipient heading ",
	};

	(void)state;
	for (unsigned kind = TEMPLATE_OF_SUBJECT; kind <= TEMPLATE_OF_HTML; kind++)
		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			const char *needed = kind == TEMPLATE_OF_DATE    ? "{{day}}{{month}}"
					     : kind >= TEMPLATE_OF_PLAIN ? "{{code}}"
									 : "";
			char source[128], word[32];
			struct template *template;

			(void)snprintf(source, sizeof(source), "%s{{%s}}", needed, names[i]);
			(void)snprintf(word, sizeof(word), " %s ", names[i]);
			listen_to_complaints();
			template = template_parse((enum template_kind)kind, "it", source, strlen(source));
			listen_no_more();
			assert_true((template != NULL) == (strstr(allowed[kind], word) != NULL));
			assert_true((template != NULL) == (said[0] == '\0'));
			template_free(template);
		}
}

static void values_are_escaped_in_html_alone(void **state)
{
	const char *values[TEMPLATE_VALUES] = {
	    [TEMPLATE_HEADING] = "<R&D> \"it's\"", [TEMPLATE_RECIPIENT] = "a&b'c@example.com", [TEMPLATE_CODE] = "1"};
	static const char source[] = "<{{heading}}|{{recipient}}|{{code}}>";
	static const struct {
		enum template_kind kind;
		const char *filled;
	} cases[] = {
	    {TEMPLATE_OF_PLAIN, "<<R&D> \"it's\"|a&b'c@example.com|1>"},
	    {TEMPLATE_OF_HTML, "<&lt;R&amp;D&gt; &quot;it&#39;s&quot;|a&amp;b&#39;c@example.com|1>"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct template *template = template_parse(cases[i].kind, "it", source, strlen(source));
		char bytes[256];
		struct text text;

		assert_non_null(template);
		text_init(&text, bytes, sizeof(bytes));
		template_fill(template, values, &text);
		assert_string_equal(bytes, cases[i].filled);
		template_free(template);
	}
}

/* --- Dates --- */

static void dates_are_written_as_the_language_does(void **state)
{
	static const char english[] =
	    "{{day}} {{month}} {{year}} at {{hour}}:{{minute}}\nJan\nFeb\nMar\nApr\nMay\nJun\n"
	    "Jul\nAug\nSeptember\nOct\nNov\nDec\n";
	static const struct {
		const char *source, *written;
		int longest;
	} cases[] = {
	    {NULL, "2024-05-03 09:05 UTC", 11},
	    {english, "3 May 2024 at 09:05", 8},
	    {"{{day}}.{{month}}.{{year}}\n", "3.5.2024", 11},
	    {"{{day}}.{{month}}.", "3.5.", 11},
	};
	static const char *const wrong[] = {"", "{{day}}", "{{month}} {{year}}", "{{day}}{{month}}\n\n", "{{code}}"};
	struct tm utc = {.tm_year = 124, .tm_mon = 4, .tm_mday = 3, .tm_hour = 9, .tm_min = 5};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *source = cases[i].source;
		struct date_form *form = source == NULL ? NULL : date_form_parse("it", source, strlen(source));
		char bytes[64];
		struct text text;

		assert_true((form == NULL) == (source == NULL));
		text_init(&text, bytes, sizeof(bytes));
		date_form_put(form, &utc, &text);
		assert_string_equal(bytes, cases[i].written);
		assert_int_equal(date_form_longest_month(form), cases[i].longest);
		date_form_free(form);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		listen_to_complaints();
		assert_null(date_form_parse("it", wrong[i], strlen(wrong[i])));
		listen_no_more();
		assert_true(said[0] != '\0');
	}
	/* a name too many, a control character in one */
	for (size_t i = 0; i < 2; i++) {
		char source[256];

		(void)snprintf(source, sizeof(source), "%s%s", english, i == 0 ? "Undecimber\n" : "");
		if (i == 1)
			source[strlen(source) - 2] = '\t';
		listen_to_complaints();
		assert_null(date_form_parse("it", source, strlen(source)));
		listen_no_more();
		assert_has(said, "it:2: ");
	}
}

/* --- What is shipped --- */

static const char *const locales[] = {"ar", "de", "en", "es", "fr", "it", "ja", "nl", "pl", "pt-BR", "zh-Hans"};
static const char *const purposes[] = {"", "sign-in", "verify-email", "change-email", "confirm-action"};
#define LOCALES (sizeof(locales) / sizeof(locales[0]))
#define PURPOSES (sizeof(purposes) / sizeof(purposes[0]))

static size_t count_of(const char *text, const char *part)
{
	size_t count = 0;

	for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
		count++;
	return count;
}

/* The first line of a part, that is in every mail the heading. */
static void copy_heading(char heading[static 256], const char *plain)
{
	size_t length = strcspn(plain, "\r");

	assert_in_range(length, 8, 255);
	memcpy(heading, plain, length);
	heading[length] = '\0';
}

static void look_at(const char *mail, const char *locale, char heading[static 256])
{
	const char *part = decoded_part(mail, "text/plain");
	char language[64];

	assert_wire_safe(mail, 76);
	assert_int_equal(count_of(part, "\r\n98765432\r\n"), 1);
	assert_int_equal(count_of(part, "98765432"), 1);
	assert_int_equal(count_of(part, "jane@example.com"), 1);
	assert_int_equal(count_of(part, "CDH"), 1);
	assert_true(strstr(part, "CDH") > strstr(part, "98765432") + 64); /* away from the digits */
	assert_int_equal(count_of(part, "{{"), 0);
	copy_heading(heading, part);
	part = decoded_part(mail, "text/html");
	(void)snprintf(language, sizeof(language), "<html lang=\"%s\"", locale);
	assert_has(part, language);
	assert_int_equal(count_of(part, "\r\n98765432\r\n"), 1);
	assert_int_equal(count_of(part, "98765432"), 1);
	assert_int_equal(count_of(part, "jane@example.com"), 1);
	assert_int_equal(count_of(part, "CDH"), 1);
	assert_int_equal(count_of(part, heading), 2); /* title and heading */
	assert_int_equal(count_of(part, "{{"), 0);
	assert_true(strlen(part) < 2048);
}

static struct message_composer *compose_shipped(struct texts *shared)
{
	static const struct sender from = {.address = "otp@example.com"}, nobody;
	static const struct texts none = {.dir = ""};
	struct message_settings settings = {.place = "texts",
					    .app_name = "Acme",
					    .subject = "Your {{app_name}} code",
					    .subject_place = "EMAIL_SUBJECT",
					    .from = &from,
					    .reply_to = &nobody,
					    .locale = "",
					    .own = &none,
					    .shared = shared};
	static char path[PATH_BYTES];
	struct message_composer *composer = NULL;

	assert_non_null(getenv("OTP_SOURCE"));
	(void)snprintf(path, sizeof(path), "%s/templates", getenv("OTP_SOURCE"));
	assert_int_equal(texts_load(shared, path), RESULT_OK);
	assert_int_equal(message_composer_new(&composer, &settings), RESULT_OK);
	return composer;
}

/* Each language has a heading of its own for each purpose, and each mail what a person needs, once. */
static void every_shipped_text_is_in_form(void **state)
{
	static char heading[LOCALES * PURPOSES][256];
	static char out[MESSAGE_BYTES];
	struct message_request request = {.challenge = {[14] = 0, [15] = 12}, /* 012 */
					  .recipient = "jane@example.com",
					  .code = "98765432",
					  .created_ms = INT64_C(1714745106789),
					  .expires_ms = INT64_C(1714745106789) + 600000};
	struct texts shared;
	struct message_composer *composer = compose_shipped(&shared);
	size_t length = 0;

	(void)state;
	assert_int_equal(shared.count, LOCALES * PURPOSES);
	for (size_t i = 0; i < LOCALES * PURPOSES; i++) {
		request.locale = locales[i / PURPOSES];
		request.purpose = purposes[i % PURPOSES];
		assert_int_equal(message_build(composer, &request, out, sizeof(out), &length), RESULT_OK);
		look_at(out, request.locale, heading[i]);
		assert_true(strcspn(strstr(out, "\r\nSubject: ") + 2, "\r") <= 78);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(heading[i], heading[j]);
	}
	message_composer_free(composer);
	texts_free(&shared);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_file_is_looked_up_for_itself),
	    cmocka_unit_test(what_is_missing_is_named),
	    cmocka_unit_test(all_that_is_wrong_is_named),
	    cmocka_unit_test(each_text_has_its_placeholders),
	    cmocka_unit_test(values_are_escaped_in_html_alone),
	    cmocka_unit_test(dates_are_written_as_the_language_does),
	    cmocka_unit_test(every_shipped_text_is_in_form),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, start, finish);
}
