/* mime.c: how text stands in a mail: headers (RFC 5322, 2047) and bodies (RFC 2045). */
#include "mail/mime.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#include "base/utf8.h"

#define HEADER_LINE 76U  /* RFC 2047 2: a line with an encoded word is no longer */
#define ENCODED_WORD 75U /* RFC 2047 2 */
#define QUOTED_LINE 76U  /* RFC 2045 6.7 (5) */

static void put_base64(struct text *page, const char *bytes, size_t count)
{
	char encoded[sodium_base64_ENCODED_LEN(ENCODED_WORD, sodium_base64_VARIANT_ORIGINAL)];

	(void)sodium_bin2base64(encoded, sizeof(encoded), (const unsigned char *)bytes, count,
				sodium_base64_VARIANT_ORIGINAL);
	text_put(page, encoded);
}

static bool is_printable_ascii(const char *text)
{
	for (; *text != '\0'; text++)
		if (*text < 0x20 || *text > 0x7E)
			return false;
	return true;
}

/* How many bytes of text, whole characters only, fit in room bytes. */
static size_t whole_characters(const char *text, size_t room)
{
	size_t fits = 0;
	size_t left = strlen(text);

	while (fits < left) {
		size_t step = utf8_length(text + fits, left - fits);

		if (step == 0 || fits + step > room)
			break;
		fits += step;
	}
	return fits;
}

/* Text as encoded words, folded, on a line that has column bytes already. Returns the column after it. */
static size_t put_encoded(struct text *page, const char *text, size_t column)
{
	static const char open[] = "=?UTF-8?B?";
	const size_t frame = sizeof(open) - 1 + 2;

	while (*text != '\0' && !page->is_full) {
		size_t width = HEADER_LINE - column < ENCODED_WORD ? HEADER_LINE - column : ENCODED_WORD;
		size_t count = whole_characters(text, (width - frame) / 4 * 3);

		if (count == 0)
			break;
		text_put(page, open);
		put_base64(page, text, count);
		text_put(page, "?=");
		column += frame + (count + 2) / 3 * 4;
		text += count;
		if (*text != '\0') {
			text_put(page, "\r\n ");
			column = 1;
		}
	}
	return column;
}

/* Can text stand in a header as it is? Not if it looks encoded, and folding is for encoded words only. */
static bool is_plain(const char *text, size_t column)
{
	return is_printable_ascii(text) && strstr(text, "=?") == NULL && column + strlen(text) <= HEADER_LINE &&
	       text[0] != ' ' && (text[0] == '\0' || text[strlen(text) - 1] != ' ');
}

void mime_put_subject(struct text *page, const char *text)
{
	static const char name[] = "Subject: ";

	text_put(page, name);
	if (is_plain(text, sizeof(name) - 1))
		text_put(page, text);
	else
		(void)put_encoded(page, text, sizeof(name) - 1);
	text_put(page, "\r\n");
}

/* A display name as a quoted string (RFC 5322 3.2.4) or encoded words. Returns the column after it. */
static size_t put_display_name(struct text *page, const char *name, size_t column)
{
	size_t start = page->length;

	if (!is_plain(name, column + 2))
		return put_encoded(page, name, column);
	text_put(page, "\"");
	for (; *name != '\0'; name++) {
		if (*name == '"' || *name == '\\')
			text_put(page, "\\");
		text_put_bytes(page, name, 1);
	}
	text_put(page, "\"");
	return column + page->length - start;
}

void mime_put_mailbox(struct text *page, const char *header, const struct sender *mailbox)
{
	bool has_name = mailbox->name[0] != '\0';

	text_put(page, header);
	if (has_name) {
		size_t column = put_display_name(page, mailbox->name, strlen(header));

		text_put(page, column + strlen(mailbox->address) + 3 > HEADER_LINE ? "\r\n <" : " <");
	}
	text_put(page, mailbox->address);
	text_put(page, has_name ? ">\r\n" : "\r\n");
}

/* How many bytes of text, up to room, stand as they are: printable ones but '=', and no space before a line's end. */
static size_t plain_run(const char *text, size_t length, size_t room)
{
	size_t most = length < room ? length : room;
	size_t run = 0;

	while (run < most && text[run] >= ' ' && text[run] <= '~' && text[run] != '=')
		run++;
	if (run > 0 && text[run - 1] == ' ' && (run == length || text[run] == '\n'))
		run--;
	return run;
}

/* Quoted-printable of text with LF line ends; it ends with a line end. */
void mime_put_quoted(struct text *page, const char *text, size_t length)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t column = 0;

	for (size_t i = 0; i < length;) {
		size_t run = plain_run(text + i, length - i, QUOTED_LINE - 1 - column);
		unsigned char byte = (unsigned char)text[i];
		char code[3] = {'=', hex[byte >> 4], hex[byte & 15]};

		if (run > 0) {
			text_put_bytes(page, text + i, run);
			column += run;
			i += run;
		} else if (byte == '\n') {
			text_put(page, "\r\n");
			column = 0;
			i++;
		} else if (column + sizeof(code) >= QUOTED_LINE) {
			text_put(page, "=\r\n");
			column = 0;
		} else {
			text_put_bytes(page, code, sizeof(code));
			column += sizeof(code);
			i++;
		}
	}
	if (column > 0)
		text_put(page, "\r\n");
}

/* "Fri, 03 May 2024 14:05:06 +0000", whatever the process's locale. */
void mime_put_date(struct text *page, const struct tm *utc)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";

	text_printf(page, "%.3s, %02d %.3s %04d %02d:%02d:%02d +0000", days + 3 * utc->tm_wday, utc->tm_mday,
		    months + 3 * utc->tm_mon, utc->tm_year + 1900, utc->tm_hour, utc->tm_min, utc->tm_sec);
}
