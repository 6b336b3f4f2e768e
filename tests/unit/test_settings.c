/* test_settings.c: every setting's default, range and complaint; --help and the other arguments. */
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
#include "otp/settings.h"

static char output[16384]; /* what the last call wrote */

/* Runs with_output(context) with the descriptor redirected into output. */
static int captured(int descriptor, int (*with_output)(void *context), void *context)
{
	FILE *stream = descriptor == STDERR_FILENO ? stderr : stdout;
	(void)fflush(stream);
	int saved = dup(descriptor);
	int file = memfd_create("output", 0);
	(void)dup2(file, descriptor);
	int result = with_output(context);
	(void)fflush(stream);
	(void)dup2(saved, descriptor);
	(void)close(saved);
	ssize_t count = pread(file, output, sizeof(output) - 1, 0);
	output[count < 0 ? 0 : count] = '\0';
	(void)close(file);
	return result;
}

struct call {
	struct settings settings;
	enum program program;
	int argc;
	char **argv;
};

static int call_read(void *context)
{
	struct call *call = context;
	complaint_start(program_name(call->program));
	return settings_read(&call->settings, call->program);
}

static int call_arguments(void *context)
{
	struct call *call = context;
	return settings_arguments(call->program, call->argc, call->argv);
}

static struct settings settings; /* as last read */

static enum result read_as(enum program program)
{
	struct call call = {.program = program};
	enum result result = (enum result)captured(STDERR_FILENO, call_read, &call);
	settings = call.settings;
	return result;
}

static enum config_action argue(enum program program, int descriptor, int argc, char **argv)
{
	struct call call = {.program = program, .argc = argc, .argv = argv};
	return (enum config_action)captured(descriptor, call_arguments, &call);
}

/* The least that every program accepts. */
static int minimal(void **state)
{
	(void)state;
	(void)clearenv();
	(void)setenv("DATABASE_URL", "dbname=otp", 1);
	(void)setenv("KEY_DIR", "/keys", 1);
	(void)setenv("EMAIL_FROM", "otp@example.com", 1);
	return 0;
}

static void assert_refused(enum program program, const char *name, const char *value, const char *complaint)
{
	(void)setenv(name, value, 1);
	assert_int_equal(read_as(program), RESULT_INVALID);
	assert_string_equal(output, complaint);
	(void)unsetenv(name);
}

static void defaults_are_as_documented(void **state)
{
	(void)state;
	assert_int_equal(read_as(PROGRAM_GENERATE), RESULT_OK);
	assert_string_equal(output, "");
	assert_string_equal(settings.database_url, "dbname=otp");
	assert_string_equal(settings.key_dir, "/keys");
	assert_string_equal(settings.listen, "");
	assert_int_equal(settings.expire_minutes, 10);
	assert_int_equal(settings.password_length, 6);
	assert_int_equal(settings.max_attempts, 5);
	assert_int_equal(settings.resend_seconds, 60);
	assert_int_equal(settings.sends_per_hour, 5);
	assert_int_equal(settings.sends_per_day, 10);
	assert_int_equal(settings.budget_per_hour, 1000);
	assert_string_equal(settings.applications, "");
	assert_int_equal(settings.batch_max, 128);
	assert_int_equal(settings.queue_max, 2048);
	assert_int_equal(settings.log_level, LOG_INFO);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
	assert_int_equal(settings.expire_minutes, 0); /* who makes a code says how long it lives */
	assert_string_equal(settings.app_name, "OTP");
	assert_string_equal(settings.email_subject, "Your {{app_name}} code");
	assert_string_equal(settings.email_from.address, "otp@example.com");
	assert_string_equal(settings.email_from.name, "");
	assert_string_equal(settings.email_reply_to.address, "");
	assert_string_equal(settings.locale, "");
	assert_string_equal(settings.template_dir, OTP_TEMPLATE_DIR);
	assert_int_equal(settings.smtp_relays.count, 1);
	assert_string_equal(settings.smtp_relays.relay[0].endpoint.host, "localhost");
	assert_string_equal(settings.smtp_relays.relay[0].endpoint.port, "25");
	assert_int_equal(settings.smtp_tls, SMTP_TLS_REQUIRED);
	assert_string_equal(settings.smtp_ca_file, "");
	assert_string_equal(settings.smtp_user, "");
	assert_string_equal(settings.smtp_password_file, "");
	assert_int_equal(settings.worker_sessions, 1);
	assert_int_equal(settings.messages_per_session, 10);
	assert_int_equal(settings.retention_hours, 24);
	assert_int_equal(settings.sweep_seconds, 60);
	assert_int_equal(settings.sweep_batch, 500);
}

static void a_program_reads_its_own_settings_only(void **state)
{
	(void)state;
	(void)setenv("EXPIRE_MINUTES", "abc", 1);
	(void)setenv("SMTP_TLS", "maybe", 1);
	(void)setenv("PASSWORD_LENGTH", "99", 1);
	(void)unsetenv("EMAIL_FROM");
	assert_int_equal(read_as(PROGRAM_VALIDATE), RESULT_OK);
	assert_int_equal(settings.password_length, 0);
	assert_string_equal(settings.email_from.address, "");
}

static void empty_counts_as_not_set(void **state)
{
	(void)state;
	(void)setenv("EXPIRE_MINUTES", "", 1);
	(void)setenv("APP_NAME", "", 1);
	assert_int_equal(read_as(PROGRAM_GENERATE), RESULT_OK);
	assert_int_equal(settings.expire_minutes, 10);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
	assert_string_equal(settings.app_name, "OTP");
	(void)setenv("KEY_DIR", "", 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
}

static void required_settings_are_named(void **state)
{
	(void)state;
	(void)clearenv();
	memset(&settings, 0, sizeof(settings));
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
	assert_string_equal(output,
			    "otp-worker: DATABASE_URL: is not set; it must be the PostgreSQL connection string or URL, "
			    "with the program's own role\n"
			    "otp-worker: KEY_DIR: is not set; it must be the folder with the program's own keys, made "
			    "by otp-keygen\n"
			    "otp-worker: EMAIL_FROM: is not set; it must be the sender of the mail: \"a@b.example\" or "
			    "\"Name <a@b.example>\"\n");
	assert_null(settings.app_name); /* untouched unless all is well */
}

static void numbers_are_strict(void **state)
{
	(void)state;
	static const char *const wrong[] = {"abc",        "0",       "1441", "-1",  "+5",  " 5",
					    "5 ",         "5m",      "1e1",  "0x5", "5.0", "99999999999999999999",
					    "4294967301", "\xD9\xA5"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		(void)setenv("EXPIRE_MINUTES", wrong[i], 1);
		assert_int_equal(read_as(PROGRAM_GENERATE), RESULT_INVALID);
		assert_non_null(strstr(output, ": must be a whole number from 1 to 1440\n"));
	}
	assert_refused(PROGRAM_GENERATE, "EXPIRE_MINUTES", "abc",
		       "otp-generate: EXPIRE_MINUTES=abc: must be a whole number from 1 to 1440\n");
}

static void ranges_hold_at_both_ends(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		enum program program;
		int min, max;
		size_t offset;
	} ranges[] = {
	    {"EXPIRE_MINUTES", PROGRAM_GENERATE, 1, 1440, offsetof(struct settings, expire_minutes)},
	    {"PASSWORD_LENGTH", PROGRAM_GENERATE, 4, 12, offsetof(struct settings, password_length)},
	    {"MAX_ATTEMPTS", PROGRAM_GENERATE, 1, 100, offsetof(struct settings, max_attempts)},
	    {"RESEND_SECONDS", PROGRAM_GENERATE, 0, 86400, offsetof(struct settings, resend_seconds)},
	    {"SENDS_PER_HOUR", PROGRAM_GENERATE, 0, 1000, offsetof(struct settings, sends_per_hour)},
	    {"SENDS_PER_DAY", PROGRAM_GENERATE, 0, 1000, offsetof(struct settings, sends_per_day)},
	    {"BUDGET_PER_HOUR", PROGRAM_GENERATE, 0, 1000000, offsetof(struct settings, budget_per_hour)},
	    {"BATCH_MAX", PROGRAM_VALIDATE, 1, 1024, offsetof(struct settings, batch_max)},
	    {"QUEUE_MAX", PROGRAM_VALIDATE, 1, 100000, offsetof(struct settings, queue_max)},
	    {"WORKER_SESSIONS", PROGRAM_WORKER, 1, 32, offsetof(struct settings, worker_sessions)},
	    {"MESSAGES_PER_SESSION", PROGRAM_WORKER, 1, 1000, offsetof(struct settings, messages_per_session)},
	    {"RETENTION_HOURS", PROGRAM_WORKER, 0, 8760, offsetof(struct settings, retention_hours)},
	    {"SWEEP_SECONDS", PROGRAM_WORKER, 1, 86400, offsetof(struct settings, sweep_seconds)},
	    {"SWEEP_BATCH", PROGRAM_WORKER, 1, 100000, offsetof(struct settings, sweep_batch)},
	};
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		for (int value = ranges[i].min - 1; value <= ranges[i].max + 1;
		     value += value == ranges[i].min ? ranges[i].max - ranges[i].min : 1) {
			char text[16];
			int stored;
			bool is_inside = value >= ranges[i].min && value <= ranges[i].max;
			(void)snprintf(text, sizeof(text), "%d", value);
			(void)setenv(ranges[i].name, text, 1);
			assert_int_equal(read_as(ranges[i].program), is_inside ? RESULT_OK : RESULT_INVALID);
			memcpy(&stored, (char *)&settings + ranges[i].offset, sizeof(stored));
			assert_int_equal(stored, is_inside ? value : 0);
		}
		(void)unsetenv(ranges[i].name);
	}
}

static void every_wrong_setting_is_named(void **state)
{
	(void)state;
	(void)setenv("EXPIRE_MINUTES", "0", 1);
	(void)setenv("PASSWORD_LENGTH", "3", 1);
	(void)setenv("LOG_LEVEL", "loud", 1);
	assert_int_equal(read_as(PROGRAM_GENERATE), RESULT_INVALID);
	assert_string_equal(output, "otp-generate: EXPIRE_MINUTES=0: must be a whole number from 1 to 1440\n"
				    "otp-generate: PASSWORD_LENGTH=3: must be a whole number from 4 to 12\n"
				    "otp-generate: LOG_LEVEL=loud: must be error, warning, info or debug\n");
}

static void log_levels_and_tls_modes_are_read(void **state)
{
	(void)state;
	static const char *const levels[] = {"error", "warning", "info", "debug"};
	for (int i = 0; i < 4; i++) {
		(void)setenv("LOG_LEVEL", levels[i], 1);
		assert_int_equal(read_as(PROGRAM_VALIDATE), RESULT_OK);
		assert_int_equal(settings.log_level, i);
	}
	static const char *const modes[] = {"required", "off", "off-trusted"};
	for (int i = 0; i < 3; i++) {
		(void)setenv("SMTP_TLS", modes[i], 1);
		assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
		assert_int_equal(settings.smtp_tls, i);
	}
	assert_refused(
	    PROGRAM_WORKER, "SMTP_TLS", "OFF",
	    "otp-worker: SMTP_TLS=OFF: must be required (STARTTLS, verified), off (plaintext, loopback relays "
	    "only) or off-trusted (plaintext)\n");
}

static void plaintext_is_for_loopback_or_trusted_relays(void **state)
{
	(void)state;
	static const struct {
		const char *relays;
		bool is_allowed;
	} cases[] = {
	    {"localhost:25", true},
	    {"127.0.0.1:2525, [::1]:25", true},
	    {"127.8.9.10:25", true},
	    {"mx.example.com:25", false},
	    {"localhost:25, mx.example.com:25", false},
	    {"localhost.example.com:25", false},
	    {"127.0.0.1.example.com:25", false},
	    {"10.0.0.1:25", false},
	    {"[::2]:25", false},
	    {"[::ffff:10.0.0.1]:25", false},
	    {"smtps://mx.example.com:465", true}, /* TLS, whatever SMTP_TLS says */
	    {"smtps://mx.example.com:465, mx.example.com:25", false},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		(void)setenv("SMTP_RELAYS", cases[i].relays, 1);
		(void)setenv("SMTP_TLS", "off", 1);
		assert_int_equal(read_as(PROGRAM_WORKER), cases[i].is_allowed ? RESULT_OK : RESULT_INVALID);
		if (!cases[i].is_allowed) {
			assert_non_null(strstr(output, "SMTP_TLS=required"));
			assert_non_null(strstr(output, "SMTP_TLS=off-trusted"));
		}
		(void)setenv("SMTP_TLS", "off-trusted", 1);
		assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
		(void)setenv("SMTP_TLS", "required", 1);
		assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
	}
}

static void relays_are_taken_in_order(void **state)
{
	static const struct {
		const char *host, *port;
		bool is_ipv6, is_loopback, is_implicit;
	} expected[] = {{"mx1.example.com", "25", false, false, false},
			{"2001:db8::1", "587", true, false, false},
			{"localhost", "65535", false, true, false},
			{"mx2.example.com", "465", false, false, true},
			{"::1", "4650", true, true, true}};

	(void)state;
	(void)setenv(
	    "SMTP_RELAYS",
	    "mx1.example.com:25,  [2001:db8::1]:587 ,localhost:65535, smtps://mx2.example.com:465,SMTPS://[::1]:4650",
	    1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
	assert_int_equal(settings.smtp_relays.count, 5);
	for (size_t i = 0; i < 5; i++) {
		const struct endpoint *relay = &settings.smtp_relays.relay[i].endpoint;

		assert_string_equal(relay->host, expected[i].host);
		assert_string_equal(relay->port, expected[i].port);
		assert_int_equal(relay->is_ipv6, expected[i].is_ipv6);
		assert_int_equal(relay->is_loopback, expected[i].is_loopback);
		assert_int_equal(settings.smtp_relays.relay[i].is_implicit, expected[i].is_implicit);
	}
}

static void no_more_than_sixteen_relays(void **state)
{
	char list[400] = "";

	(void)state;
	for (int i = 0; i < 16; i++)
		(void)snprintf(list + strlen(list), sizeof(list) - strlen(list), "mx%d.example.com:25,", i);
	(void)setenv("SMTP_RELAYS", list, 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
	assert_int_equal(settings.smtp_relays.count, 16);
	(void)strcat(list, "one.more:25");
	(void)setenv("SMTP_RELAYS", list, 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
	assert_non_null(strstr(output, "must name at most 16 relays\n"));
}

static void wrong_relays_are_refused(void **state)
{
	(void)state;
	static const char *const wrong[] = {"localhost",
					    "localhost:",
					    ":25",
					    "localhost:0",
					    "localhost:65536",
					    "localhost:25x",
					    "localhost:smtp",
					    "localhost: 25",
					    "local host:25",
					    "::1:25",
					    "[::1]",
					    "[::1]25",
					    "[::1:25",
					    "[localhost]:25",
					    "[]:25",
					    "a:25,,b:25",
					    ",a:25",
					    "a:25;b:25",
					    "a..b:25",
					    "-a:25",
					    "user@host:25",
					    "smtp://host:25",
					    "smtps://host",
					    "smtps://:465",
					    "smtps://",
					    "smtps:host:465",
					    " , ",
					    "caf\xC3\xA9.fr:25",
					    "a:025",
					    "a:123456",
					    "[fe80::1%eth0]:25",
					    "a:25 b:25"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		(void)setenv("SMTP_RELAYS", wrong[i], 1);
		assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
		assert_non_null(strstr(output, "otp-worker: SMTP_RELAYS="));
		assert_non_null(strstr(
		    output, "must be host:port, [IPv6]:port or smtps://host:port, several separated by commas\n"));
	}
	assert_refused(PROGRAM_WORKER, "SMTP_RELAYS", "  ",
		       "otp-worker: SMTP_RELAYS=  : must be host:port, [IPv6]:port or smtps://host:port, several "
		       "separated by commas\n");
	assert_refused(PROGRAM_WORKER, "SMTP_RELAYS", "host:465",
		       "otp-worker: SMTP_RELAYS=host:465: a relay speaks TLS from the first byte on port 465: write "
		       "smtps://host:465\n");
	assert_refused(PROGRAM_WORKER, "SMTP_RELAYS", "[::1]:465",
		       "otp-worker: SMTP_RELAYS=[::1]:465: a relay speaks TLS from the first byte on port 465: write "
		       "smtps://[::1]:465\n");
	char long_host[300];
	memset(long_host, 'a', sizeof(long_host));
	memcpy(long_host + 254, ":25", 4);
	(void)setenv("SMTP_RELAYS", long_host, 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
	(void)setenv("SMTP_RELAYS", long_host + 1, 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
}

static void what_the_relay_is_told_is_checked(void **state)
{
	static const char *const names[] = {"mail.example.com", "[192.0.2.1]", "[IPv6:2001:db8::1]"};
	static const char *const wrong_names[] = {"a b", "a\r\nMAIL", "caf\xC3\xA9.fr", "a@b"};
	static const char *const wrong_paths[] = {"Bounces <bounces@example.com>", "nobody", "<>",
						  "a@b.example\r\nDATA"};

	(void)state;
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
	assert_string_equal(settings.smtp_helo, "");
	assert_string_equal(settings.return_path, "");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)setenv("SMTP_HELO", names[i], 1);
		assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
		assert_string_equal(settings.smtp_helo, names[i]);
	}
	for (size_t i = 0; i < sizeof(wrong_names) / sizeof(wrong_names[0]); i++) {
		(void)setenv("SMTP_HELO", wrong_names[i], 1);
		assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
		assert_non_null(strstr(output, "SMTP_HELO"));
	}
	(void)unsetenv("SMTP_HELO");
	(void)setenv("RETURN_PATH",
		     "bounces@b\xC3\xBC"
		     "cher.example",
		     1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
	assert_string_equal(settings.return_path, "bounces@xn--bcher-kva.example");
	for (size_t i = 0; i < sizeof(wrong_paths) / sizeof(wrong_paths[0]); i++) {
		(void)setenv("RETURN_PATH", wrong_paths[i], 1);
		assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
		assert_non_null(strstr(output, "RETURN_PATH"));
	}
}

static void senders_are_checked(void **state)
{
	(void)state;
	static const char *const right[] = {"a@b.example", "Name <a@b.example>", "\"Doe, J.\" <a@b.example>",
					    "Caf\xC3\xA9 \xF0\x9F\x94\x91 <a+b@b.example>", "<a@b.example>"};
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		(void)setenv("EMAIL_FROM", right[i], 1);
		assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
		assert_non_null(strstr(right[i], settings.email_from.address));
	}
	static const char *const wrong[] = {"abc",
					    "@b.example",
					    "a@",
					    "a@b@c.example",
					    "Name a@b.example",
					    "<a@b.example",
					    "Name <a@b.example> x",
					    "a@b.example, c@d",
					    "Name <>",
					    "Name <a b@c.example>",
					    "a@b.example\r\nBcc: c@d.example",
					    "N\n <a@b.example>",
					    "N\x7F <a@b.example>",
					    "\xFF <a@b.example>",
					    "\xC2\x9B <a@b.example>",
					    "A <a@b.example> <c@d.example>"};
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		(void)setenv("EMAIL_FROM", wrong[i], 1);
		assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
		assert_non_null(strstr(output, "otp-worker: EMAIL_FROM="));
		assert_ptr_equal(strchr(output, '\n'), output + strlen(output) - 1);
	}
	char text[256];
	(void)snprintf(text, sizeof(text), "%0201d <a@b.example>", 0);
	(void)setenv("EMAIL_FROM", text, 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
	assert_non_null(strstr(output, ": the name must be at most 200 bytes long\n"));
	(void)setenv("EMAIL_FROM", text + 1, 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
}

static void answers_go_to_the_sender_or_elsewhere(void **state)
{
	(void)state;
	(void)setenv("EMAIL_REPLY_TO", "Help <help@b.example>", 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
	assert_string_equal(settings.email_reply_to.name, "Help");
	assert_string_equal(settings.email_reply_to.address, "help@b.example");
	assert_refused(PROGRAM_WORKER, "EMAIL_REPLY_TO", "help",
		       "otp-worker: EMAIL_REPLY_TO=help: must be \"address\" or \"Name <address>\", such as \"Example "
		       "<no-reply@example.com>\"\n");
}

static void the_locale_is_a_tag_in_one_spelling(void **state)
{
	(void)state;
	(void)setenv("LOCALE", "pt_BR.UTF-8", 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
	assert_string_equal(settings.locale, "pt-BR");
	assert_refused(PROGRAM_WORKER, "LOCALE", "de,en",
		       "otp-worker: LOCALE=de,en: must be the tag of a language, such as de or pt-BR\n");
}

static void control_bytes_and_long_texts_are_refused(void **state)
{
	(void)state;
	assert_refused(PROGRAM_WORKER, "APP_NAME", "a\r\nb\x1B[31m",
		       "otp-worker: APP_NAME=a??b?[31m: must be UTF-8 text without control characters\n");
	assert_refused(PROGRAM_WORKER, "EMAIL_SUBJECT", "caf\xE9",
		       "otp-worker: EMAIL_SUBJECT=caf?: must be UTF-8 text without control characters\n");
	char text[256];
	memset(text, 'x', sizeof(text));
	text[65] = '\0';
	assert_refused(PROGRAM_WORKER, "APP_NAME", text,
		       "otp-worker: APP_NAME="
		       "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: must be at most 64 bytes "
		       "long\n");
	text[65] = 'x';
	text[100] = '\0';
	(void)setenv("LISTEN", text, 1);
	assert_int_equal(read_as(PROGRAM_GENERATE), RESULT_INVALID);
	assert_non_null(strstr(output, "xxx...: must be at most 99 bytes long\n"));
	(void)setenv("LISTEN", text + 1, 1);
	assert_int_equal(read_as(PROGRAM_GENERATE), RESULT_OK);
}

static void a10_no_text_ends_a_header_early(void **state)
{
	static const char *const names[] = {"APP_NAME",  "EMAIL_SUBJECT", "TEMPLATE_DIR",
					    "SMTP_USER", "EMAIL_FROM",    "EMAIL_REPLY_TO"};
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
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		for (size_t j = 0; j < sizeof(bad) / sizeof(bad[0]); j++) {
			(void)minimal(NULL);
			(void)setenv(names[i], bad[j], 1);
			assert_int_equal(read_as(PROGRAM_WORKER), RESULT_INVALID);
			assert_non_null(strstr(output, names[i]));
			assert_non_null(strstr(output, ": must be UTF-8 text without control characters\n"));
		}
	}
}

static void passwords_in_the_database_url_are_never_shown(void **state)
{
	(void)state; /* A12 */
	(void)setenv("DATABASE_URL", "postgresql://otp:hunter2@db/otp\n", 1);
	assert_int_equal(read_as(PROGRAM_GENERATE), RESULT_INVALID);
	assert_string_equal(output, "otp-generate: DATABASE_URL: must be UTF-8 text without control characters\n");
}

static void a_user_needs_a_password_file_and_vice_versa(void **state)
{
	(void)state;
	assert_refused(PROGRAM_WORKER, "SMTP_USER", "u",
		       "otp-worker: SMTP_PASSWORD_FILE: is not set, but SMTP_USER is: name the file with its password, "
		       "or unset SMTP_USER\n");
	assert_refused(PROGRAM_WORKER, "SMTP_PASSWORD_FILE", "/p",
		       "otp-worker: SMTP_USER: is not set, but SMTP_PASSWORD_FILE is: name the user, or unset "
		       "SMTP_PASSWORD_FILE\n");
	(void)setenv("SMTP_USER", "u", 1);
	(void)setenv("SMTP_PASSWORD_FILE", "/p", 1);
	assert_int_equal(read_as(PROGRAM_WORKER), RESULT_OK);
}

static void arguments_are_told_apart(void **state)
{
	(void)state;
	char name[] = "otp", check[] = "--check", version[] = "--version", other[] = "-x", probe[] = "--probe";
	assert_int_equal(argue(PROGRAM_WORKER, 1, 1, (char *[]){name, NULL}), CONFIG_RUN);
	assert_int_equal(argue(PROGRAM_WORKER, 1, 2, (char *[]){name, check, NULL}), CONFIG_CHECK);
	assert_int_equal(argue(PROGRAM_VALIDATE, 1, 2, (char *[]){name, version, NULL}), CONFIG_EXIT_OK);
	assert_string_equal(output, "otp-validate " PACKAGE_VERSION "\n");
	assert_int_equal(argue(PROGRAM_WORKER, 2, 2, (char *[]){name, other, NULL}), CONFIG_EXIT_USAGE);
	assert_string_equal(
	    output,
	    "otp-worker: unknown arguments\nUsage: otp-worker [--check | --probe [address] | --help | --version]\n");
	assert_int_equal(argue(PROGRAM_WORKER, 2, 3, (char *[]){name, check, other, NULL}), CONFIG_EXIT_USAGE);
	assert_int_equal(argue(PROGRAM_WORKER, 1, 2, (char *[]){name, probe, NULL}), CONFIG_OPTION);
	assert_int_equal(argue(PROGRAM_WORKER, 1, 3, (char *[]){name, probe, other, NULL}), CONFIG_OPTION);
	assert_int_equal(argue(PROGRAM_WORKER, 2, 4, (char *[]){name, probe, other, other, NULL}), CONFIG_EXIT_USAGE);
	assert_int_equal(argue(PROGRAM_VALIDATE, 2, 2, (char *[]){name, probe, NULL}), CONFIG_EXIT_USAGE);
}

static void help_names_every_setting_of_the_program(void **state)
{
	(void)state;
	char name[] = "otp", help[] = "--help";
	assert_int_equal(argue(PROGRAM_GENERATE, 1, 2, (char *[]){name, help, NULL}), CONFIG_EXIT_OK);
	assert_ptr_equal(strstr(output, "otp-generate: FastCGI responder for POST /generate-password"), output);
	assert_non_null(strstr(output, "\nUsage: otp-generate [--check | --help | --version]\n"));
	assert_non_null(strstr(output,
			       "\n  EXPIRE_MINUTES        10                      minutes that a code lives (1 to "
			       "1440)\n"));
	assert_non_null(strstr(output, "\n  KEY_DIR               (required) "));
	assert_non_null(strstr(output, "\n  LISTEN                (empty) "));
	assert_null(strstr(output, "SMTP_"));
	assert_int_equal(argue(PROGRAM_WORKER, 1, 2, (char *[]){name, help, NULL}), CONFIG_EXIT_OK);
	assert_non_null(strstr(output, "\n  TEMPLATE_DIR          " OTP_TEMPLATE_DIR " "));
	assert_null(strstr(output, "PASSWORD_LENGTH"));
	assert_int_equal(argue(PROGRAM_VALIDATE, 1, 2, (char *[]){name, help, NULL}), CONFIG_EXIT_OK);
	assert_null(strstr(output, "EXPIRE_MINUTES"));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(defaults_are_as_documented, minimal),
	    cmocka_unit_test_setup(a_program_reads_its_own_settings_only, minimal),
	    cmocka_unit_test_setup(empty_counts_as_not_set, minimal),
	    cmocka_unit_test_setup(required_settings_are_named, minimal),
	    cmocka_unit_test_setup(numbers_are_strict, minimal),
	    cmocka_unit_test_setup(ranges_hold_at_both_ends, minimal),
	    cmocka_unit_test_setup(every_wrong_setting_is_named, minimal),
	    cmocka_unit_test_setup(log_levels_and_tls_modes_are_read, minimal),
	    cmocka_unit_test_setup(plaintext_is_for_loopback_or_trusted_relays, minimal),
	    cmocka_unit_test_setup(relays_are_taken_in_order, minimal),
	    cmocka_unit_test_setup(no_more_than_sixteen_relays, minimal),
	    cmocka_unit_test_setup(wrong_relays_are_refused, minimal),
	    cmocka_unit_test_setup(what_the_relay_is_told_is_checked, minimal),
	    cmocka_unit_test_setup(senders_are_checked, minimal),
	    cmocka_unit_test_setup(answers_go_to_the_sender_or_elsewhere, minimal),
	    cmocka_unit_test_setup(the_locale_is_a_tag_in_one_spelling, minimal),
	    cmocka_unit_test_setup(control_bytes_and_long_texts_are_refused, minimal),
	    cmocka_unit_test_setup(a10_no_text_ends_a_header_early, minimal),
	    cmocka_unit_test_setup(passwords_in_the_database_url_are_never_shown, minimal),
	    cmocka_unit_test_setup(a_user_needs_a_password_file_and_vice_versa, minimal),
	    cmocka_unit_test_setup(arguments_are_told_apart, minimal),
	    cmocka_unit_test_setup(help_names_every_setting_of_the_program, minimal),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
