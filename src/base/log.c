/* log.c: one JSON line per event on standard error, in one write(2), so that lines of several processes never mix. */
#include "base/log.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"

#define LINE_BYTES 4096U /* PIPE_BUF: a longer write to a pipe could be torn */
#define TEXT_BYTES 512U
#define CUT_MARK "\xE2\x80\xA6" /* an ellipsis ends a text that was cut */
#define LINE_END ",\"cut\":true}\n"

/* A line being built. What does not fit is left out whole and cut is set, so the line is valid JSON at any length. */
struct line {
	char text[LINE_BYTES];
	size_t used;
	size_t limit; /* of used: keeps room for what must still follow */
	bool cut;
};

static const char *log_program = "otp";
static enum log_level log_level = LOG_INFO;

void log_start(const char *program, enum log_level level)
{
	log_program = program;
	log_level = level;
}

int log_enabled(enum log_level level)
{
	return level <= log_level;
}

static const char *level_name(enum log_level level)
{
	switch (level) {
	case LOG_ERROR:
		return "error";
	case LOG_WARNING:
		return "warning";
	case LOG_INFO:
		return "info";
	case LOG_DEBUG:
		return "debug";
	}
	return "error";
}

static bool put(struct line *line, const char *bytes, size_t count)
{
	if (count > line->limit - line->used) {
		line->cut = true;
		return false;
	}
	memcpy(line->text + line->used, bytes, count);
	line->used += count;
	return true;
}

static bool put_code_point(struct line *line, unsigned code)
{
	char escape[8];
	int length = snprintf(escape, sizeof escape, "\\u%04x", code & 0xFFFFU);
	return put(line, escape, (size_t)length);
}

/* One character of length bytes; length 0 is a byte that is no UTF-8. Control bytes of the C1 set are escaped as well:
   logs are read on terminals, which obey them. */
static bool put_character(struct line *line, const char *text, size_t length)
{
	unsigned char first = (unsigned char)text[0];
	if (length == 0)
		return put(line, "\xEF\xBF\xBD", 3);
	if (first == '"' || first == '\\') {
		char escape[2] = {'\\', text[0]};
		return put(line, escape, sizeof escape);
	}
	if (first < 0x20 || first == 0x7F)
		return put_code_point(line, first);
	if (length == 2 && first == 0xC2 && (unsigned char)text[1] < 0xA0)
		return put_code_point(line, (unsigned char)text[1]);
	return put(line, text, length);
}

/* How many characters of text, up to room, stand as they are: printable ASCII but the two that JSON escapes. */
static size_t plain_run(const char *text, size_t room)
{
	size_t run = 0;
	while (run < room && text[run] >= ' ' && text[run] <= '~' && text[run] != '"' && text[run] != '\\')
		run++;
	return run;
}

/* The quoted text, or as much of it as TEXT_BYTES and the line allow. */
static bool put_text(struct line *line, const char *text)
{
	size_t at = 0;
	size_t tail = sizeof CUT_MARK; /* the mark and, in place of its NUL, the closing quote */
	if (line->limit - line->used < 1 + tail) {
		line->cut = true;
		return false;
	}
	line->text[line->used++] = '"';
	line->limit -= tail;
	while (text[at] != '\0') {
		size_t room = line->limit - line->used;
		size_t run = plain_run(text + at, room < TEXT_BYTES - at ? room : TEXT_BYTES - at);
		if (run > 0) {
			(void)put(line, text + at, run);
			at += run;
			continue;
		}
		size_t length = utf8_length(text + at, SIZE_MAX);
		size_t step = length == 0 ? 1 : length;
		if (at + step > TEXT_BYTES || !put_character(line, text + at, length))
			break;
		at += step;
	}
	line->limit += tail;
	if (text[at] != '\0')
		(void)put(line, CUT_MARK, sizeof CUT_MARK - 1);
	return put(line, "\"", 1);
}

static void put_field(struct line *line, const struct log_field *field)
{
	size_t start = line->used;
	bool whole = put(line, ",", 1) && put_text(line, field->key) && put(line, ":", 1);
	if (whole && field->text != NULL) {
		whole = put_text(line, field->text);
	} else if (whole) {
		char number[24];
		int length = snprintf(number, sizeof number, "%lld", field->number);
		whole = put(line, number, (size_t)length);
	}
	if (!whole)
		line->used = start;
}

static void put_start(struct line *line)
{
	struct timespec now = {0};
	struct tm utc;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (gmtime_r(&now.tv_sec, &utc) == NULL)
		memset(&utc, 0, sizeof utc);
	char text[96];
	int length =
	    snprintf(text, sizeof text, "{\"time\":\"%04d-%02d-%02dT%02d:%02d:%02d.%03dZ\"", utc.tm_year + 1900,
		     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, (int)(now.tv_nsec / 1000000));
	(void)put(line, text, (size_t)length);
}

void log_write(enum log_level level, const char *event, const struct log_field *fields)
{
	if (!log_enabled(level))
		return;
	int saved = errno;
	struct line line;
	line.used = 0;
	line.limit = sizeof line.text - (sizeof LINE_END - 1);
	line.cut = false;
	put_start(&line);
	put_field(&line, &(struct log_field)LOG_TEXT("level", level_name(level)));
	put_field(&line, &(struct log_field)LOG_TEXT("program", log_program));
	put_field(&line, &(struct log_field)LOG_TEXT("event", event));
	for (; fields->key != NULL; fields++)
		put_field(&line, fields);
	line.limit = sizeof line.text;
	if (line.cut)
		(void)put(&line, LINE_END, sizeof LINE_END - 1);
	else
		(void)put(&line, "}\n", 2);
	/* A log that cannot be written must not stop the service. */
	while (write(STDERR_FILENO, line.text, line.used) < 0 && errno == EINTR)
		;
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
