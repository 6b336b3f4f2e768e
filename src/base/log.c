/* log.c: one JSON line per event on standard error, in one write(2), so that lines of several processes never mix, and
   without waiting for whoever reads them. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "base/utf8.h"

#define LINE_BYTES 4096U /* PIPE_BUF: a longer write to a pipe could be torn */
#define TEXT_BYTES 512U
#define QUIET_MS 60000U
#define CUT_MARK "\xE2\x80\xA6" /* an ellipsis ends a text that was cut */

const char *const log_level_names[LOG_LEVELS] = {
    [LOG_ERROR] = "error",
    [LOG_WARNING] = "warning",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

static const char *log_program = "otp";
static enum log_level log_level = LOG_INFO;

static int output = STDERR_FILENO;
static bool is_socket;
static long long dropped;

/* An open file of our own, so that not to wait is our affair alone: others share the one behind standard error. Sockets
   cannot be opened so, and need not. */
void log_reopen(void)
{
	struct stat status;
	int own = -1;

	is_socket = fstat(STDERR_FILENO, &status) == 0 && S_ISSOCK(status.st_mode);
	if (!is_socket && !S_ISREG(status.st_mode))
		own = open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	output = own >= 0 ? own : STDERR_FILENO;
}

void log_start(const char *program, enum log_level level)
{
	log_program = program;
	log_level = level;
	if (output == STDERR_FILENO)
		log_reopen();
}

bool log_is_due(uint64_t *quiet_until_ms, uint64_t now_ms)
{
	if (now_ms < *quiet_until_ms)
		return false;
	*quiet_until_ms = now_ms + QUIET_MS;
	return true;
}

int log_enabled(enum log_level level)
{
	return level <= log_level;
}

/* --- Output --- */

static ssize_t write_once(const char *bytes, size_t length)
{
	struct pollfd room = {.fd = output, .events = POLLOUT};

	if (is_socket)
		return send(output, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
	/* A line is no longer than what a pipe takes at once or not at all. */
	return output != STDERR_FILENO || poll(&room, 1, 0) == 1 ? write(output, bytes, length) : -1;
}

/* A log that cannot be written must not stop the service, and a reader that sleeps must not either. */
static bool write_line(const struct text *line)
{
	ssize_t count;

	do
		count = write_once(line->bytes, line->length);
	while (count < 0 && errno == EINTR);
	return count >= 0;
}

/* --- Lines --- */

static void put_escape(struct text *line, unsigned code)
{
	text_printf(line, "\\u%04x", code & 0xFFFFU);
}

/* One character of length bytes; length 0 is a byte that is no UTF-8. Control bytes of the C1 set are escaped as well:
   logs are read on terminals, which obey them. */
static void put_character(struct text *line, const char *text, size_t length)
{
	unsigned char first = (unsigned char)text[0];

	if (length == 0)
		text_put(line, "\xEF\xBF\xBD");
	else if (first == '"' || first == '\\')
		text_put_bytes(line, (const char[]){'\\', text[0]}, 2);
	else if (first < 0x20 || first == 0x7F)
		put_escape(line, first);
	else if (length == 2 && first == 0xC2 && (unsigned char)text[1] < 0xA0)
		put_escape(line, (unsigned char)text[1]);
	else
		text_put_bytes(line, text, length);
}

/* How many characters of text, up to room, stand as they are: printable ASCII but the two that JSON escapes. */
static size_t plain_run(const char *text, size_t room)
{
	size_t run = 0;

	while (run < room && text[run] >= ' ' && text[run] <= '~' && text[run] != '"' && text[run] != '\\')
		run++;
	return run;
}

/* As much of text as TEXT_BYTES and the line allow; how much that was. */
static size_t put_characters(struct text *line, const char *text)
{
	size_t at = 0;

	while (text[at] != '\0') {
		size_t room = line->size - line->length - 1;
		size_t run = plain_run(text + at, room < TEXT_BYTES - at ? room : TEXT_BYTES - at);

		if (run > 0) {
			text_put_bytes(line, text + at, run);
			at += run;
		} else {
			size_t length = utf8_length(text + at, SIZE_MAX);
			size_t step = length == 0 ? 1 : length;

			if (at + step > TEXT_BYTES)
				break;
			put_character(line, text + at, length);
			if (line->is_full)
				break;
			at += step;
		}
	}
	return at;
}

/* The quoted text; a mark at its end shows that it was cut. */
static void put_text(struct text *line, const char *text)
{
	size_t tail = sizeof(CUT_MARK); /* the mark and, in place of its NUL, the closing quote */
	size_t at;

	if (line->size - line->length <= 1 + tail)
		line->is_full = true;
	text_put(line, "\"");
	if (line->is_full)
		return;
	line->size -= tail;
	at = put_characters(line, text);
	line->size += tail;
	line->is_full = false;
	if (text[at] != '\0')
		text_put(line, CUT_MARK);
	text_put(line, "\"");
}

/* What does not fit is left out whole, so that the line is JSON at any length; false then. */
static bool put_field(struct text *line, const struct log_field *field)
{
	size_t start = line->length;

	text_put(line, ",");
	put_text(line, field->key);
	text_put(line, ":");
	if (field->text != NULL)
		put_text(line, field->text);
	else
		text_printf(line, "%lld", field->number);
	if (!line->is_full)
		return true;
	text_cut(line, start);
	return false;
}

static void put_time(struct text *line)
{
	struct timespec now = {0};
	struct tm utc;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (gmtime_r(&now.tv_sec, &utc) == NULL)
		memset(&utc, 0, sizeof(utc));
	text_printf(line, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", utc.tm_year + 1900, utc.tm_mon + 1,
		    utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, (int)(now.tv_nsec / 1000000));
}

static void put_line(struct text *line, enum log_level level, const char *event, const struct log_field *fields)
{
	static const char cut_end[] = ",\"cut\":true}\n";
	size_t size = line->size;
	bool is_whole;

	line->size -= sizeof(cut_end) - 1;
	put_time(line);
	(void)put_field(line, &(struct log_field)LOG_TEXT("level", log_level_names[level]));
	(void)put_field(line, &(struct log_field)LOG_TEXT("program", log_program));
	is_whole = put_field(line, &(struct log_field)LOG_TEXT("event", event));
	for (; fields->key != NULL; fields++)
		is_whole = put_field(line, fields) && is_whole;
	line->size = size;
	text_put(line, is_whole ? "}\n" : cut_end);
}

static bool write_event(enum log_level level, const char *event, const struct log_field *fields)
{
	char bytes[LINE_BYTES + 1];
	struct text line;

	text_init(&line, bytes, sizeof(bytes));
	put_line(&line, level, event, fields);
	return write_line(&line);
}

static void tell_gap(void)
{
	const char *event = "log_lines_dropped";
	const struct log_field fields[] = {LOG_NUMBER("lines", dropped), {.key = NULL}};

	if (dropped > 0 && write_event(LOG_WARNING, event, fields))
		dropped = 0;
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
	int saved = errno;

	if (!log_enabled(level))
		return;
	tell_gap();
	if (dropped > 0 || !write_event(level, event, fields))
		dropped++;
	errno = saved;
}

const char *log_mask_address(const char *address, char out[static LOG_MASKED_BYTES])
{
	const char *at = strrchr(address, '@');
	/* A local part of one letter would not be masked by showing its first one. */
	bool shows_first = at != NULL && at - address > 1 && address[0] > 0x20 && address[0] < 0x7F;

	(void)snprintf(out, LOG_MASKED_BYTES, "%.*s***%s", shows_first ? 1 : 0, address, at != NULL ? at : "");
	return out;
}
