/* test_message.c: the mail's bytes without any server: headers, encodings, templates and what is refused (A10, P2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/complaint.h"
#include "mail/message.h"
#include "mail_parts.h"

#define PATH_BYTES 256
#define TEXT_OK "Code for {{app_name}}:\n\n{{code}}\n\n{{minutes}} min, {{requested_at}} = now\n"
#define HTML_OK "<p>Code for {{app_name}}:</p><b>\n{{code}}\n</b>{{minutes}} min, {{requested_at}} = now\n"

static char folder[] = "/tmp/otp-test-message-XXXXXX";
static char out[MESSAGE_BYTES];

static const char *path_of(const char *name)
{
	static char path[PATH_BYTES];

	assert_true((size_t)snprintf(path, sizeof(path), "%s/%s", folder, name) < sizeof(path));
	return path;
}

static void write_bytes(const char *name, const char *text, size_t length)
{
	FILE *file = fopen(path_of(name), "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
}

static void write_text(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

static int start(void **state)
{
	(void)state;
	if (mkdtemp(folder) == NULL || mkdir(path_of("en"), 0700) != 0)
		return -1;
	write_text("en/mail.txt", TEXT_OK);
	write_text("en/mail.html", HTML_OK);
	return 0;
}

static int finish(void **state)
{
	char command[PATH_BYTES];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -r '%s'", folder);
	return system(command);
}

/* What the composer at hand points to, and where answers go. */
static struct texts shared;
static const struct texts none = {.dir = ""};
static struct sender reply_to;

static void composer_free(struct message_composer *composer)
{
	message_composer_free(composer);
	texts_free(&shared);
}

/* Makes a composer while standard error goes to the file "log"; NULL if refused. */
static struct message_composer *try_new(const char *app_name, const char *subject, const char *from)
{
	struct sender sender;
	struct message_settings settings = {.place = "texts",
					    .app_name = app_name,
					    .subject = subject,
					    .subject_place = "EMAIL_SUBJECT",
					    .from = &sender,
					    .reply_to = &reply_to,
					    .locale = "",
					    .own = &none,
					    .shared = &shared};
	const char *reason = NULL;
	struct message_composer *composer = NULL;
	int saved = dup(STDERR_FILENO);
	int log = open(path_of("log"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
	enum result result;

	assert_true(saved >= 0 && log >= 0);
	dup2(log, STDERR_FILENO);
	result = sender_parse(&sender, from, &reason);
	if (result != RESULT_OK)
		complain("EMAIL_FROM", "%s", reason);
	else if ((result = texts_load(&shared, folder)) == RESULT_OK)
		result = message_composer_new(&composer, &settings);
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(log);
	assert_true(result == RESULT_OK ? composer != NULL : composer == NULL);
	if (composer == NULL)
		composer_free(NULL);
	return composer;
}

static bool was_logged(const char *text)
{
	char log[8192];
	FILE *file = fopen(path_of("log"), "rb");
	size_t length;

	assert_non_null(file);
	length = fread(log, 1, sizeof(log) - 1, file);
	log[length] = '\0';
	assert_int_equal(fclose(file), 0);
	return strstr(log, text) != NULL;
}

static struct message_composer *new_ok(const char *app_name, const char *subject, const char *from)
{
	struct message_composer *composer = try_new(app_name, subject, from);

	assert_non_null(composer);
	return composer;
}

static const char *build_for(const struct message_composer *composer, const char *locale, const char *purpose)
{
	struct message_request request = {.id = {0x01, 0x8f, 0x3d, 0xe8, 0x4d, 0x50, 0xab},
					  .challenge = {[13] = 0x01, [14] = 0x8f, [15] = 0x3d}, /* 102205 */
					  .purpose = purpose,
					  .recipient = "Jane.Doe+tag@xn--bcher-kva.example",
					  .code = "012345",
					  .locale = locale,
					  .created_ms = INT64_C(1714745106789),
					  .expires_ms = INT64_C(1714745106789) + 600000};
	size_t length = 0;

	assert_int_equal(message_build(composer, &request, out, sizeof(out), &length), RESULT_OK);
	assert_int_equal(strlen(out), length);
	return out;
}

static const char *build(const struct message_composer *composer, const char *locale)
{
	return build_for(composer, locale, "");
}

/* Builds with these settings; the caller looks at out. */
static const char *mail_of(const char *app_name, const char *subject, const char *from)
{
	struct message_composer *composer = new_ok(app_name, subject, from);

	(void)build(composer, NULL);
	composer_free(composer);
	return out;
}

static void test_headers(void **state)
{
	const char *mail = mail_of("Acme", "Your {{app_name}} code", "Acme Login <Login@Example.com>");
	const char *end = "\r\n--=_018f3de8-4d50-ab00-0000-000000000000--\r\n";

	(void)state;
	assert_wire_safe(mail, 76);
	assert_int_equal(strncmp(mail, "Date: Fri, 03 May 2024 14:05:06 +0000\r\n", 39), 0);
	assert_has(mail, "\r\nFrom: \"Acme Login\" <Login@example.com>\r\nTo: Jane.Doe+tag@xn--bcher-kva.example\r\n"
			 "Message-ID: <018f3de8-4d50-ab00-0000-000000000000@example.com>\r\n"
			 "Subject: Your Acme code\r\nAuto-Submitted: auto-generated\r\n"
			 "X-Auto-Response-Suppress: All\r\n"
			 "X-Entity-Ref-ID: 018f3de8-4d50-ab00-0000-000000000000\r\nMIME-Version: 1.0\r\n");
	assert_has(mail, "\r\nMIME-Version: 1.0\r\nContent-Type: multipart/alternative;\r\n boundary=\"=_018f3de8-");
	assert_has(mail, "\r\nContent-Type: text/plain; charset=utf-8\r\n");
	assert_has(mail, "\r\nContent-Type: text/html; charset=utf-8\r\n");
	assert_string_equal(mail + strlen(mail) - strlen(end), end);
}

static void test_bodies(void **state)
{
	const char *mail = mail_of("R&D <\"x\"> caf\xC3\xA9", "s", "a@example.com");

	(void)state;
	assert_wire_safe(mail, 76);
	/* The code can be read in the raw file, alone on its line, in both parts. */
	assert_has(mail, "\r\n012345\r\n");
	assert_has(strstr(mail, "text/html"), "\r\n012345\r\n");
	assert_string_equal(decoded_part(mail, "text/plain"), "Code for R&D <\"x\"> caf\xC3\xA9:\r\n\r\n012345\r\n\r\n"
							      "10 min, 2024-05-03 14:05 UTC = now\r\n");
	assert_string_equal(decoded_part(mail, "text/html"),
			    "<p>Code for R&amp;D &lt;&quot;x&quot;&gt; caf\xC3\xA9:</p><b>\r\n012345\r\n</b>"
			    "10 min, 2024-05-03 14:05 UTC = now\r\n");
}

static void test_awkward_lines(void **state)
{
	char text[4096] = "{{code}}\r\n.\r\n..dots\n trailing \t\nFrom here\n=3D\n";
	const char *start_of_it = "012345\r\n.\r\n..dots\r\n trailing \t\r\nFrom here\r\n=3D\r\nxxx";
	size_t used = strlen(text);

	(void)state;
	memset(text + used, 'x', 3000);
	memcpy(text + used + 3000, "\xF0\x9F\x94\x91 ", 6);
	write_text("en/mail.txt", text);
	(void)mail_of("Acme", "s", "a@example.com");
	write_text("en/mail.txt", TEXT_OK);
	assert_wire_safe(out, 76);
	assert_int_equal(strncmp(decoded_part(out, "text/plain"), start_of_it, strlen(start_of_it)), 0);
	assert_has(decoded_part(out, "text/plain"), "x\xF0\x9F\x94\x91 \r\n");
	assert_null(strstr(out, " \r\n"));
	assert_has(out, "=20\r\n");
}

/* RFC 2045 6.7 (3): a relay may drop blanks at a line's end, so none stands there, whatever the column. */
static void test_trailing_space_is_encoded(void **state)
{
	char text[256];

	(void)state;
	for (int length = 70; length <= 80; length++) {
		(void)snprintf(text, sizeof(text), "{{code}}\n%.*s  \n", length,
			       "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345");
		write_text("en/mail.txt", text);
		(void)mail_of("Acme", "s", "a@example.com");
		assert_wire_safe(out, 76);
		assert_null(strstr(out, " \r\n"));
		(void)snprintf(text, sizeof(text), "%.*s  \r\n", length,
			       "1234567890123456789012345678901234567890123456789012345678901234567890123456789012345");
		assert_has(decoded_part(out, "text/plain"), text);
	}
	write_text("en/mail.txt", TEXT_OK);
}

static void test_repeat_is_identical_P2(void **state)
{
	struct message_composer *composer = new_ok("Acme", "s", "a@example.com");
	char *first = strdup(build(composer, "en"));

	(void)state;
	assert_non_null(first);
	assert_string_equal(build(composer, "en"), first);
	free(first);
	composer_free(composer);
}

static void test_from(void **state)
{
	(void)state;
	assert_has(mail_of("A", "s", "a@example.com"), "\r\nFrom: a@example.com\r\n");
	assert_has(mail_of("A", "s", "<a@example.com>"), "\r\nFrom: a@example.com\r\n");
	assert_has(mail_of("A", "s", "\"Acme, \\\"Inc\\\"\" <a@example.com>"),
		   "\r\nFrom: \"Acme, \\\"Inc\\\"\" <a@example.com>\r\n");
	assert_has(mail_of("A", "s", "\"Acme \\\"Inc\\\" <b> \\\\\" <a@example.com>"),
		   "\r\nFrom: \"Acme \\\"Inc\\\" <b> \\\\\" <a@example.com>\r\n");
	assert_has(mail_of("A", "s",
			   "Zo\xC3\xAB \xF0\x9F\x94\x91 <a@b\xC3\xBC"
			   "cher.example>"),
		   "\r\nFrom: =?UTF-8?B?Wm/DqyDwn5SR?= <a@xn--bcher-kva.example>\r\n");
	assert_has(mail_of("A", "s", "=?x?= <a@example.com>"), "\r\nFrom: =?UTF-8?B?PT94Pz0=?= <a@example.com>\r\n");
}

static void test_reply_to(void **state)
{
	(void)state;
	assert_null(strstr(mail_of("A", "s", "a@example.com"), "Reply-To"));
	reply_to = (struct sender){.name = "Zo\xC3\xAB", .address = "help@example.org"};
	(void)mail_of("A", "s", "Acme <a@example.com>");
	reply_to = (struct sender){.address = ""};
	assert_has(out,
		   "\r\nFrom: \"Acme\" <a@example.com>\r\nReply-To: =?UTF-8?B?Wm/Dqw==?= <help@example.org>\r\nTo: ");
}

/* What each mail says of itself: its code, its reference, its purpose. */
static void test_subject_of_each_mail(void **state)
{
	struct message_composer *composer =
	    new_ok("Acme", "{{code}} {{app_name}} {{purpose}} {{reference}}", "a@example.com");

	(void)state;
	assert_has(build_for(composer, NULL, "sign-in"), "\r\nSubject: 012345 Acme sign-in HCP\r\n");
	assert_has(build_for(composer, NULL, ""), "\r\nSubject: 012345 Acme  HCP\r\n");
	composer_free(composer);
}

static void test_subject(void **state)
{
	char subject[700] = "";

	(void)state;
	assert_has(mail_of("Caf\xC3\xA9", "Code: {{app_name}}", "a@example.com"),
		   "\r\nSubject: =?UTF-8?B?Q29kZTogQ2Fmw6k=?=\r\n");
	assert_has(mail_of("A", "=?UTF-8?Q?x?=", "a@example.com"), "\r\nSubject: =?UTF-8?B?PT9VVEYtOD9RP3g/PQ==?=\r\n");
	for (int i = 0; i < 150; i++)
		strcat(subject, i % 2 == 0 ? "\xF0\x9F\x94\x91" : "x");
	assert_wire_safe(mail_of("A", subject, "a@example.com"), 76);
	/* The longest APP_NAME, name and a subject made of both still fit. */
	memset(subject, 'n', 200);
	subject[200] = '\0';
	assert_wire_safe(mail_of(subject, "{{app_name}} {{app_name}}", "a@example.com"), 76);
}

/* Settings that would let a header, a recipient or a command in (A10, traps: libesmtp filters nothing). */
static void test_refused_settings_A10(void **state)
{
	static const char *const bad[] = {"a\r\nBcc: x@example.com",
					  "a\nb",
					  "a\rb",
					  "a\x7F",
					  "a\tb",
					  "a\x01",
					  "\xC2\x85",
					  "\xFF",
					  "\xC0\xAF",
					  "\xED\xA0\x80"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char from[256];

		assert_null(try_new("A", bad[i], "a@example.com"));
		assert_true(was_logged("EMAIL_SUBJECT"));
		(void)snprintf(from, sizeof(from), "%s <a@example.com>", bad[i]);
		assert_null(try_new("A", "s", from));
		assert_true(was_logged("EMAIL_FROM: "));
	}
	assert_null(try_new("A", "s", ""));
	assert_null(try_new("A", "s", "Acme"));
	assert_null(try_new("A", "s", "Acme <a@example.com"));
	assert_null(try_new("A", "s", "a@example.com, b@example.com"));
	assert_null(try_new("A", "{{minutes}}", "a@example.com"));
	assert_true(was_logged("EMAIL_SUBJECT:1: this placeholder has no value here; there are {{app_name}} {{code}} "
			       "{{reference}} {{purpose}}\n"));
}

static void refuse_template(const char *name, const char *text, size_t length, const char *where, const char *why)
{
	const char *good = strstr(name, "html") != NULL ? HTML_OK : TEXT_OK;

	write_bytes(name, text, length);
	assert_null(try_new("A", "s", "a@example.com"));
	write_text(name, good);
	assert_true(was_logged(name));
	assert_true(was_logged(where));
	assert_true(was_logged(why));
}

#define REFUSE(name, text, line, why) refuse_template(name, text, sizeof(text) - 1, name ":" line ": ", why)

static void test_refused_templates(void **state)
{
	static char large[TEXTS_FILE_MAX + 1];
	char from[PATH_BYTES];

	(void)state;
	REFUSE("en/mail.txt", "{{code}}\n\n{{name}}\n", "3", "unknown placeholder");
	REFUSE("en/mail.txt", "a\n{{code\n", "2", "{{ without }}");
	REFUSE("en/mail.txt", "\xEF\xBB\xBF{{code}}\n", "1", "byte order mark");
	REFUSE("en/mail.html", "\xEF\xBB\xBF{{code}}\n", "1", "byte order mark");
	REFUSE("en/mail.html", "a\n{{ code }}\n", "2", "unknown placeholder");
	REFUSE("en/mail.html", "{{app_name}}\n", "1", "missing: {{code}}");
	REFUSE("en/mail.txt", "{{code}}\n\xE9\n", "2", "UTF-8");
	REFUSE("en/mail.txt", "{{code}}\na\rb\n", "2", "control character");
	REFUSE("en/mail.txt", "{{code}}\n\0\n", "2", "control character");
	memset(large, 'x', sizeof(large));
	memcpy(large, "{{code}}", 8);
	refuse_template("en/mail.txt", large, sizeof(large), "en/mail.txt: ", "too large");
	assert_int_equal(unlink(path_of("en/mail.html")), 0);
	assert_null(try_new("A", "s", "a@example.com"));
	assert_true(was_logged("en/mail.html") && was_logged("No such file"));
	write_text("en/mail.html", HTML_OK);
	(void)snprintf(from, sizeof(from), "%s", path_of("en"));
	assert_int_equal(rename(from, path_of("fr")), 0);
	assert_null(try_new("A", "s", "a@example.com"));
	assert_true(was_logged("there is no folder en"));
}

static void test_languages(void **state)
{
	static const char *const portuguese[] = {"pt-BR", "pt-br", "pt-BR-x-foo", "pt", "pt-PT", "pt-BRA"};
	static const char *const english[] = {
	    "en", "en-GB", "xx", "", "-", "../en", "en-aaaaaaaa-aaaaaaaa-aaaaaaaa-aaaaaaaa"};
	struct message_composer *composer;

	(void)state;
	assert_int_equal(mkdir(path_of("pt-BR"), 0700), 0);
	assert_int_equal(mkdir(path_of("de"), 0700), 0);
	write_text("pt-BR/mail.txt", "C\xC3\xB3"
				     "digo\n{{code}}\n");
	write_text("pt-BR/mail.html", "C\xC3\xB3"
				      "digo\n{{code}}\n");
	write_text("pt-BR/subject.txt", "C\xC3\xB3"
					"digo {{app_name}}\n");
	write_text("de/mail.txt", "Deutsch\n{{code}}\n");
	write_text("de/mail.html", "Deutsch\n{{code}}\n");
	composer = new_ok("Acme", "Your code", "a@example.com");
	for (size_t i = 0; i < sizeof(portuguese) / sizeof(portuguese[0]); i++) {
		assert_has(decoded_part(build(composer, portuguese[i]), "text/plain"), "C\xC3\xB3"
										       "digo\r\n");
		assert_has(out, "\r\nSubject: =?UTF-8?B?Q8OzZGlnbyBBY21l?=\r\n");
	}
	for (size_t i = 0; i < sizeof(english) / sizeof(english[0]); i++) {
		assert_has(decoded_part(build(composer, english[i]), "text/plain"), "Code for Acme");
		assert_has(out, "\r\nSubject: Your code\r\n");
	}
	assert_has(decoded_part(build(composer, "de-CH-1996"), "text/plain"), "Deutsch");
	composer_free(composer);
}

static void test_no_room(void **state)
{
	struct message_composer *composer = new_ok("A", "s", "a@example.com");
	struct message_request request = {
	    .recipient = "b@example.com", .code = "1", .purpose = "", .expires_ms = 60000};
	size_t whole = 0;
	size_t length = 7;

	(void)state;
	assert_int_equal(message_build(composer, &request, out, sizeof(out), &whole), RESULT_OK);
	for (size_t size = 1; size <= whole; size++)
		assert_int_equal(message_build(composer, &request, out, size, &length), RESULT_FAULT);
	assert_int_equal(length, 7);
	assert_int_equal(message_build(composer, &request, out, whole + 1, &length), RESULT_OK);
	request.created_ms = INT64_MAX;
	assert_int_equal(message_build(composer, &request, out, sizeof(out), &length), RESULT_FAULT);
	composer_free(composer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_headers),
	    cmocka_unit_test(test_bodies),
	    cmocka_unit_test(test_awkward_lines),
	    cmocka_unit_test(test_trailing_space_is_encoded),
	    cmocka_unit_test(test_repeat_is_identical_P2),
	    cmocka_unit_test(test_from),
	    cmocka_unit_test(test_reply_to),
	    cmocka_unit_test(test_subject),
	    cmocka_unit_test(test_subject_of_each_mail),
	    cmocka_unit_test(test_refused_settings_A10),
	    cmocka_unit_test(test_languages),
	    cmocka_unit_test(test_no_room),
	    cmocka_unit_test(test_refused_templates),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, start, finish);
}
