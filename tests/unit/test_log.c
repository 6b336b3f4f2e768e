/* test_log.c: lines are valid JSON whatever goes in, one write each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utf8.h"

#define TIME_BYTES (sizeof("{\"time\":\"2024-01-02T03:04:05.678Z\"") - 1)

static int reader = -1;
static int real_stderr = -1;

/* Standard error becomes a datagram socket: each write(2) is one message. */
static int capture(void **state)
{
	(void)state;
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) != 0)
		return -1;
	real_stderr = dup(STDERR_FILENO);
	reader = pair[0];
	(void)dup2(pair[1], STDERR_FILENO);
	(void)close(pair[1]);
	log_start("otp-test", LOG_INFO);
	return 0;
}

static int release(void **state)
{
	(void)state;
	(void)dup2(real_stderr, STDERR_FILENO);
	(void)close(real_stderr);
	return close(reader);
}

/* The next line, checked to have come in one write; "" if none. */
static const char *next_line(void)
{
	static char line[8192];
	ssize_t count = recv(reader, line, sizeof(line) - 1, MSG_DONTWAIT);
	line[count < 0 ? 0 : count] = '\0';
	if (count > 0) {
		assert_true(count <= 4096);
		assert_ptr_equal(strchr(line, '\n'), line + count - 1);
	}
	return line;
}

/* What follows the time. */
static const char *next_rest(void)
{
	const char *line = next_line();
	assert_true(strlen(line) > TIME_BYTES);
	return line + TIME_BYTES;
}

/* A JSON string at text; its length with both quotes, 0 if it is not one. */
static size_t json_string(const char *text)
{
	if (text[0] != '"')
		return 0;
	size_t at = 1;
	while (text[at] != '"') {
		size_t step = utf8_length(text + at, SIZE_MAX);
		if (step == 0 || (unsigned char)text[at] < 0x20)
			return 0;
		if (text[at] == '\\') {
			step = text[at + 1] == 'u' ? 6 : 2;
			if (strchr("\"\\u", text[at + 1]) == NULL ||
			    (step == 6 && strspn(text + at + 2, "0123456789abcdef") < 4))
				return 0;
		}
		at += step;
	}
	return at + 1;
}

/* Is the line a flat JSON object with a line feed? */
static bool json_line(const char *line)
{
	for (char expected = '{'; *line == expected; expected = ',') {
		line++;
		size_t key = json_string(line);
		if (key == 0 || line[key] != ':')
			return false;
		line += key + 1;
		size_t value = *line == '"' ? json_string(line) : strspn(line, "-0123456789true");
		if (value == 0)
			return false;
		line += value;
	}
	return strcmp(line, "}\n") == 0;
}

static void a_line_has_its_fields_in_order(void **state)
{
	(void)state;
	log_event(LOG_WARNING, "mail_refused", LOG_TEXT("relay", "mx:25"), LOG_NUMBER("status", -550));
	const char *line = next_line();
	int year, month, day, hour, minute, second, ms;
	assert_int_equal(sscanf(line, "{\"time\":\"%4d-%2d-%2dT%2d:%2d:%2d.%3dZ\"", &year, &month, &day, &hour, &minute,
				&second, &ms),
			 7);
	assert_string_equal(line + TIME_BYTES,
			    ",\"level\":\"warning\",\"program\":\"otp-test\",\"event\":\"mail_refused\","
			    "\"relay\":\"mx:25\",\"status\":-550}\n");
}

static void an_event_needs_no_fields(void **state)
{
	(void)state;
	log_write(LOG_ERROR, "stopped", (const struct log_field[]){{.key = NULL}});
	assert_string_equal(next_rest(), ",\"level\":\"error\",\"program\":\"otp-test\",\"event\":\"stopped\"}\n");
}

static void levels_above_the_limit_are_dropped(void **state)
{
	(void)state;
	log_start("otp-test", LOG_WARNING);
	log_event(LOG_INFO, "e", LOG_NUMBER("n", 1));
	log_event(LOG_DEBUG, "e", LOG_NUMBER("n", 1));
	assert_string_equal(next_line(), "");
	log_event(LOG_WARNING, "e", LOG_NUMBER("n", 1));
	assert_string_not_equal(next_line(), "");
	assert_true(log_enabled(LOG_ERROR) && !log_enabled(LOG_INFO));
}

static void null_text_is_empty(void **state)
{
	(void)state;
	const char *none = NULL;
	log_event(LOG_INFO, "e", LOG_TEXT("t", none));
	assert_non_null(strstr(next_line(), ",\"t\":\"\"}"));
}

static void errno_is_kept_even_if_nothing_can_be_written(void **state)
{
	(void)state;
	(void)close(STDERR_FILENO);
	errno = ENOENT;
	log_event(LOG_INFO, "e", LOG_NUMBER("n", 1));
	assert_int_equal(errno, ENOENT);
}

/* Drops what was not written before, so that the next test sees its own lines alone. */
static void what_was_not_written_is_counted(void **state)
{
	(void)state;
	log_event(LOG_INFO, "next", LOG_NUMBER("n", 2));
	assert_non_null(strstr(next_line(), "\"event\":\"log_lines_dropped\",\"lines\":1}\n"));
	assert_non_null(strstr(next_line(), "\"event\":\"next\",\"n\":2}\n"));
	log_event(LOG_INFO, "more", LOG_NUMBER("n", 3));
	assert_non_null(strstr(next_line(), "\"event\":\"more\""));
}

/* fill: until the reader's buffer is full and beyond. */
static void assert_never_blocks(int descriptor, int other)
{
	int saved = dup(STDERR_FILENO);
	char buffer[65536];
	long long lines = 0;
	char *last;

	(void)dup2(descriptor, STDERR_FILENO);
	(void)close(descriptor);
	log_reopen();
	(void)alarm(20); /* a line that waits ends the test */
	for (int i = 0; i < 20000; i++)
		log_event(LOG_INFO, "flood",
			  LOG_TEXT("text", "a line of some length that fills the buffer of who does not read"));
	(void)fcntl(other, F_SETFL, O_NONBLOCK);
	for (ssize_t count; (count = read(other, buffer, sizeof(buffer))) > 0;)
		for (ssize_t i = 0; i < count; i++)
			lines += buffer[i] == '\n';
	assert_true(lines > 100 && lines < 20000);
	log_event(LOG_INFO, "after", LOG_NUMBER("n", 1));
	(void)alarm(0);
	(void)memset(buffer, 0, sizeof(buffer));
	assert_true(read(other, buffer, sizeof(buffer) - 1) > 0);
	last = strstr(buffer, "\"event\":\"log_lines_dropped\",\"lines\":");
	assert_non_null(last);
	assert_int_equal(strtoll(strstr(last, "lines\":") + 7, NULL, 10), 20000 - lines);
	assert_non_null(strstr(last, "\"event\":\"after\""));
	(void)dup2(saved, STDERR_FILENO);
	(void)close(saved);
	(void)close(other);
	log_reopen();
}

static void a_reader_that_sleeps_stops_nobody(void **state)
{
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_never_blocks(ends[1], ends[0]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	assert_never_blocks(ends[1], ends[0]);
}

static void untrusted_text_is_escaped(void **state)
{
	(void)state;
	static const struct {
		const char *in, *out;
	} cases[] = {
	    {"a\"b\\c", "a\\\"b\\\\c"},
	    {"\r\n\t\x01\x1f\x7f", "\\u000d\\u000a\\u0009\\u0001\\u001f\\u007f"},
	    {"caf\xC3\xA9 \xF0\x9F\x94\x91", "caf\xC3\xA9 \xF0\x9F\x94\x91"},
	    {"\xC2\x9B"
	     "31m",
	     "\\u009b31m"},
	    {"\xC2\xA0", "\xC2\xA0"},
	    {"\xFF", "\xEF\xBF\xBD"},
	    {"\xC3", "\xEF\xBF\xBD"},
	    {"\xC3\xC3\xA9", "\xEF\xBF\xBD\xC3\xA9"},
	    {"\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
	    {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
	    {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char expected[256];
		(void)snprintf(expected, sizeof(expected), ",\"t\":\"%s\"}\n", cases[i].out);
		log_event(LOG_INFO, "e", LOG_TEXT("t", cases[i].in));
		const char *line = next_line();
		assert_non_null(strstr(line, expected));
		assert_true(json_line(line));
	}
}

static void long_text_is_cut_between_characters(void **state)
{
	(void)state;
	char text[1025];
	for (size_t i = 0; i < 1024; i += 2)
		memcpy(text + i, "\xC3\xA9", 2);
	text[1024] = '\0';
	log_event(LOG_INFO, "e", LOG_TEXT("even", text), LOG_TEXT("odd", text + 1), LOG_NUMBER("after", 7));
	const char *line = next_line();
	assert_true(json_line(line));
	assert_non_null(strstr(line, "\xC3\xA9\xE2\x80\xA6\",\"odd\":\"\xEF\xBF\xBD\xC3\xA9"));
	assert_non_null(strstr(line, ",\"after\":7}\n"));
	text[512] = '\0';
	log_event(LOG_INFO, "e", LOG_TEXT("t", text));
	assert_null(strstr(next_line(), "\xE2\x80\xA6"));
}

static void an_overlong_line_stays_valid_and_says_so(void **state)
{
	(void)state;
	char hostile[513];
	memset(hostile, '\x01', sizeof(hostile) - 1);
	hostile[512] = '\0';
	log_event(LOG_INFO, "e", LOG_TEXT("a", hostile), LOG_TEXT("b", hostile), LOG_TEXT("c", hostile),
		  LOG_NUMBER("n", 1));
	const char *line = next_line();
	assert_true(json_line(line));
	assert_non_null(strstr(line, ",\"cut\":true}\n"));
	assert_null(strstr(line, "\"c\":\""));
}

static void every_length_and_byte_gives_valid_json(void **state)
{
	(void)state;
	char a[600], b[600];
	unsigned seed = 1;
	for (int round = 0; round < 20000; round++) {
		size_t length = (size_t)(round % 599);
		for (size_t i = 0; i < length; i++) {
			seed = seed * 1103515245U + 12345U;
			unsigned value = seed >> 16;
			a[i] = (char)(1 + value % 255);
			b[i] = (value & 3U) != 0 ? '\x02' : '"';
		}
		a[length] = b[length] = '\0';
		log_event(LOG_INFO, "e", LOG_TEXT("a", a), LOG_TEXT("b", b), LOG_TEXT("c", a), LOG_NUMBER("n", round));
		assert_true(json_line(next_line()));
	}
}

static void addresses_are_masked(void **state)
{
	(void)state;
	char out[LOG_MASKED_BYTES];
	assert_string_equal(log_mask_address("jane.doe@example.com", out), "j***@example.com");
	assert_string_equal(log_mask_address("j@example.com", out), "***@example.com");
	assert_string_equal(log_mask_address("@example.com", out), "***@example.com");
	assert_string_equal(log_mask_address("no address", out), "***");
	assert_string_equal(log_mask_address("", out), "***");
	assert_string_equal(log_mask_address("a@b@c.d", out), "a***@c.d");
	assert_string_equal(log_mask_address("\xC3\xA9\xC3\xA9@c.d", out), "***@c.d");
	char long_address[600];
	memset(long_address, 'x', sizeof(long_address) - 1);
	long_address[2] = '@';
	long_address[sizeof(long_address) - 1] = '\0';
	assert_int_equal(strlen(log_mask_address(long_address, out)), LOG_MASKED_BYTES - 1);
}

static void utf8_is_told_from_the_rest(void **state)
{
	(void)state;
	assert_true(utf8_is_valid("", 0));
	assert_true(utf8_is_valid("a\0b", 3));
	assert_true(utf8_is_valid("\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", 18));
	static const char *const bad[] = {"\x80",
					  "\xC1\xBF",
					  "\xC2",
					  "\xE0\x9F\xBF",
					  "\xED\xA0\x80",
					  "\xE1\x80",
					  "\xF0\x8F\xBF\xBF",
					  "\xF4\x90\x80\x80",
					  "\xF5\x80\x80\x80",
					  "\xE1\x80\xC0",
					  "a\xFF"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(utf8_is_valid(bad[i], strlen(bad[i])));
	assert_int_equal(utf8_length("\xC3\xA9", 1), 0);
}

static void the_same_line_comes_once_a_minute(void **state)
{
	uint64_t quiet_until_ms = 0;

	(void)state;
	assert_true(log_is_due(&quiet_until_ms, 5));
	assert_false(log_is_due(&quiet_until_ms, 5));
	assert_false(log_is_due(&quiet_until_ms, 60004));
	assert_true(log_is_due(&quiet_until_ms, 60005));
	assert_false(log_is_due(&quiet_until_ms, 60006));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_line_has_its_fields_in_order, capture, release),
	    cmocka_unit_test_setup_teardown(an_event_needs_no_fields, capture, release),
	    cmocka_unit_test_setup_teardown(levels_above_the_limit_are_dropped, capture, release),
	    cmocka_unit_test_setup_teardown(null_text_is_empty, capture, release),
	    cmocka_unit_test_setup_teardown(errno_is_kept_even_if_nothing_can_be_written, capture, release),
	    cmocka_unit_test_setup_teardown(what_was_not_written_is_counted, capture, release),
	    cmocka_unit_test(a_reader_that_sleeps_stops_nobody),
	    cmocka_unit_test(the_same_line_comes_once_a_minute),
	    cmocka_unit_test_setup_teardown(untrusted_text_is_escaped, capture, release),
	    cmocka_unit_test_setup_teardown(long_text_is_cut_between_characters, capture, release),
	    cmocka_unit_test_setup_teardown(an_overlong_line_stays_valid_and_says_so, capture, release),
	    cmocka_unit_test_setup_teardown(every_length_and_byte_gives_valid_json, capture, release),
	    cmocka_unit_test(addresses_are_masked),
	    cmocka_unit_test(utf8_is_told_from_the_rest),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
