/* message.c: the bytes of a mail: headers and both bodies, a pure function of composer and request.
   Formats: RFC 5322 (headers), 2045 (quoted-printable), 2046 (multipart), 2047 (encoded words), 3834 (Auto-Submitted).
 */
#include "mail/message.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/utf8.h"
#include "mail/template.h"
#include "otp/address.h"
#include "otp/code.h"

#define HEADER_LINE 76U    /* RFC 2047 2: a line with an encoded word is no longer */
#define ENCODED_WORD 75U   /* RFC 2047 2 */
#define QUOTED_LINE 76U    /* RFC 2045 6.7 (5) */
#define NAME_MAX_BYTES 200 /* of APP_NAME and of the name in EMAIL_FROM */
#define SUBJECT_BYTES 1024U
#define HEADER_BYTES 4096U
#define SCRATCH_BYTES 65536U

struct message_composer {
	struct templates templates;
	char app_name[NAME_MAX_BYTES + 1];
	char from[HEADER_BYTES];       /* the header "From: ...", ready */
	char sender[ADDRESS_MAX + 1];  /* MAIL FROM */
	char (*subject)[HEADER_BYTES]; /* the header "Subject: ..." of each language, ready */
	char scratch[SCRATCH_BYTES];   /* a filled template; wiped after use */
};

/* Text that grows in a fixed buffer; once something does not fit, full stays set. */
struct page {
	char *text;
	size_t size;
	size_t used;
	bool full;
};

static void put_bytes(struct page *page, const char *bytes, size_t count)
{
	if (page->full || count >= page->size - page->used) {
		page->full = true;
		return;
	}
	memcpy(page->text + page->used, bytes, count);
	page->used += count;
	page->text[page->used] = '\0';
}

static void put(struct page *page, const char *text)
{
	put_bytes(page, text, strlen(text));
}

/* Three bytes as four characters of base64; missing ones are padded. */
static void put_base64(struct page *page, const unsigned char *bytes, size_t count)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

	for (size_t i = 0; i < count; i += 3) {
		unsigned long group = (unsigned long)bytes[i] << 16 |
				      (i + 1 < count ? (unsigned long)bytes[i + 1] << 8 : 0) |
				      (i + 2 < count ? bytes[i + 2] : 0);
		char four[4] = {digit[group >> 18], digit[group >> 12 & 63], digit[group >> 6 & 63], digit[group & 63]};

		if (i + 1 >= count)
			four[2] = '=';
		if (i + 2 >= count)
			four[3] = '=';
		put_bytes(page, four, sizeof four);
	}
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
static size_t put_encoded(struct page *page, const char *text, size_t column)
{
	static const char open[] = "=?UTF-8?B?";
	const size_t frame = sizeof open - 1 + 2;

	while (*text != '\0' && !page->full) {
		size_t width = HEADER_LINE - column < ENCODED_WORD ? HEADER_LINE - column : ENCODED_WORD;
		size_t count = whole_characters(text, (width - frame) / 4 * 3);

		if (count == 0)
			break;
		put(page, open);
		put_base64(page, (const unsigned char *)text, count);
		put(page, "?=");
		column += frame + (count + 2) / 3 * 4;
		text += count;
		if (*text != '\0') {
			put(page, "\r\n ");
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

static void put_subject(struct page *page, const char *text)
{
	static const char name[] = "Subject: ";

	put(page, name);
	if (is_plain(text, sizeof name - 1))
		put(page, text);
	else
		(void)put_encoded(page, text, sizeof name - 1);
	put(page, "\r\n");
}

/* A display name as a quoted string (RFC 5322 3.2.4) or encoded words. Returns the column after it. */
static size_t put_display_name(struct page *page, const char *name, size_t column)
{
	size_t start = page->used;

	if (!is_plain(name, column + 2))
		return put_encoded(page, name, column);
	put(page, "\"");
	for (; *name != '\0'; name++) {
		if (*name == '"' || *name == '\\')
			put(page, "\\");
		put_bytes(page, name, 1);
	}
	put(page, "\"");
	return column + page->used - start;
}

static void put_from(struct page *page, const char *name, const char *mailbox)
{
	static const char header[] = "From: ";

	put(page, header);
	if (*name != '\0') {
		size_t column = put_display_name(page, name, sizeof header - 1);

		put(page, column + strlen(mailbox) + 3 > HEADER_LINE ? "\r\n <" : " <");
	}
	put(page, mailbox);
	put(page, *name != '\0' ? ">\r\n" : "\r\n");
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
static void put_quoted(struct page *page, const char *text, size_t length)
{
	static const char hex[] = "0123456789ABCDEF";
	size_t column = 0;

	for (size_t i = 0; i < length;) {
		size_t run = plain_run(text + i, length - i, QUOTED_LINE - 1 - column);
		unsigned char byte = (unsigned char)text[i];
		char code[3] = {'=', hex[byte >> 4], hex[byte & 15]};

		if (run > 0) {
			put_bytes(page, text + i, run);
			column += run;
			i += run;
		} else if (byte == '\n') {
			put(page, "\r\n");
			column = 0;
			i++;
		} else if (column + sizeof code >= QUOTED_LINE) {
			put(page, "=\r\n");
			column = 0;
		} else {
			put_bytes(page, code, sizeof code);
			column += sizeof code;
			i++;
		}
	}
	if (column > 0)
		put(page, "\r\n");
}

/* "Fri, 03 May 2024 14:05:06 +0000", whatever the process's locale. */
static void put_date(struct page *page, const struct tm *utc)
{
	static const char days[] = "SunMonTueWedThuFriSat";
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	char text[64];

	(void)snprintf(text, sizeof text, "%.3s, %02d %.3s %04d %02d:%02d:%02d +0000", days + 3 * utc->tm_wday,
		       utc->tm_mday, months + 3 * utc->tm_mon, utc->tm_year + 1900, utc->tm_hour, utc->tm_min,
		       utc->tm_sec);
	put(page, text);
}

static void put_headers(struct page *page, const struct message_composer *composer, size_t language,
			const struct message_request *request, const struct tm *utc)
{
	char id[TOKEN_ID_TEXT + 1];

	token_id_write(request->id, id);
	put(page, "Date: ");
	put_date(page, utc);
	put(page, "\r\n");
	put(page, composer->from);
	put(page, "To: ");
	put(page, request->recipient);
	put(page, "\r\nMessage-ID: <");
	put(page, id);
	put(page, "@");
	put(page, message_sender_domain(composer));
	put(page, ">\r\n");
	put(page, composer->subject[language]);
	put(page, "Auto-Submitted: auto-generated\r\n"
		  "X-Auto-Response-Suppress: All\r\n"
		  "MIME-Version: 1.0\r\n"
		  "Content-Type: multipart/alternative;\r\n boundary=\"=_");
	put(page, id);
	put(page, "\"\r\n\r\n");
}

/* One body. The boundary begins with "=_", which quoted-printable never contains (RFC 2045 6.7). */
static void put_part(struct page *page, struct message_composer *composer, const char *id, const char *type,
		     const struct template *template, const char *const values[TEMPLATE_VALUES], bool escape)
{
	size_t length = 0;

	put(page, "--=_");
	put(page, id);
	put(page, "\r\nContent-Type: ");
	put(page, type);
	put(page, "; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n");
	if (template_fill(template, values, escape, composer->scratch, SCRATCH_BYTES, &length) == RESULT_OK)
		put_quoted(page, composer->scratch, length);
	else
		page->full = true;
	explicit_bzero(composer->scratch, length);
}

static enum result build(struct message_composer *composer, size_t language, const struct message_request *request,
			 struct page *page)
{
	const struct template_set *set = &composer->templates.set[language];
	time_t created = (time_t)(request->created_ms / 1000);
	long long minutes = (request->expires_ms - request->created_ms + 30000) / 60000;
	char id[TOKEN_ID_TEXT + 1];
	char minutes_text[24];
	char requested_at[64];
	struct tm utc;
	const char *values[TEMPLATE_VALUES] = {[TEMPLATE_APP_NAME] = composer->app_name,
					       [TEMPLATE_CODE] = request->code,
					       [TEMPLATE_MINUTES] = minutes_text,
					       [TEMPLATE_REQUESTED_AT] = requested_at};

	if (gmtime_r(&created, &utc) == NULL || utc.tm_year < 70 || utc.tm_year > 8099 || minutes < 0)
		return RESULT_FAULT;
	token_id_write(request->id, id);
	(void)snprintf(minutes_text, sizeof minutes_text, "%lld", minutes < 1 ? 1 : minutes);
	(void)snprintf(requested_at, sizeof requested_at, "%04d-%02d-%02d %02d:%02d UTC", utc.tm_year + 1900,
		       utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min);
	put_headers(page, composer, language, request, &utc);
	put_part(page, composer, id, "text/plain", set->text, values, false);
	put_part(page, composer, id, "text/html", set->html, values, true);
	put(page, "--=_");
	put(page, id);
	put(page, "--\r\n");
	return page->full ? RESULT_FAULT : RESULT_OK;
}

enum result message_build(struct message_composer *composer, const struct message_request *request, char *out,
			  size_t size, size_t *length)
{
	const struct template_set *set = templates_choose(&composer->templates, request->locale);
	struct page page = {.text = out, .size = size};
	enum result result = build(composer, (size_t)(set - composer->templates.set), request, &page);

	if (result == RESULT_OK)
		*length = page.used;
	return result;
}

const char *message_sender(const struct message_composer *composer)
{
	return composer->sender;
}

const char *message_sender_domain(const struct message_composer *composer)
{
	return strrchr(composer->sender, '@') + 1;
}

static enum result refuse(const char *setting, const char *reason)
{
	log_event(LOG_ERROR, "setting_invalid", LOG_TEXT("setting", setting), LOG_TEXT("reason", reason));
	return RESULT_INVALID;
}

/* The name in front of "<...>": as it is, or, if it is a quoted string, what that says. Spaces around it go. */
static enum result read_name(char name[static NAME_MAX_BYTES + 1], const char *text, size_t length)
{
	size_t used = 0;
	bool quoted;

	while (length > 0 && text[length - 1] == ' ')
		length--;
	for (; length > 0 && *text == ' '; length--)
		text++;
	quoted = length >= 2 && text[0] == '"' && text[length - 1] == '"';
	if (quoted) {
		text++;
		length -= 2;
	}
	for (size_t i = 0; i < length; i++) {
		if (quoted && text[i] == '\\' && i + 1 < length)
			i++;
		if (used == NAME_MAX_BYTES)
			return refuse("EMAIL_FROM", "the name is longer than 200 bytes");
		name[used++] = text[i];
	}
	name[used] = '\0';
	return RESULT_OK;
}

/* Splits EMAIL_FROM into the ready header and the envelope's address. */
static enum result read_from(struct message_composer *composer, const char *from)
{
	char name[NAME_MAX_BYTES + 1] = "";
	size_t length = strlen(from);
	const char *open = strrchr(from, '<');
	const char *mailbox = from;
	struct page page = {.text = composer->from, .size = sizeof composer->from};
	struct address address;

	if (!template_is_clean(from, length, false, NULL))
		return refuse("EMAIL_FROM", "it is not UTF-8 text, or holds a control character");
	if (open != NULL && from[length - 1] == '>') {
		if (read_name(name, from, (size_t)(open - from)) != RESULT_OK)
			return RESULT_INVALID;
		mailbox = open + 1;
		length = (size_t)(from + length - 1 - mailbox);
	}
	if (address_parse(&address, mailbox, length) != RESULT_OK)
		return refuse("EMAIL_FROM", "it must be \"user@example.com\" or \"Name <user@example.com>\"");
	memcpy(composer->sender, address.recipient, sizeof composer->sender);
	put_from(&page, name, address.recipient);
	return page.full ? refuse("EMAIL_FROM", "too long") : RESULT_OK;
}

static enum result read_app_name(struct message_composer *composer, const char *app_name)
{
	size_t length = strlen(app_name);

	if (length == 0 || length > NAME_MAX_BYTES)
		return refuse("APP_NAME", "it must have 1 to 200 bytes");
	if (!template_is_clean(app_name, length, false, NULL))
		return refuse("APP_NAME", "it is not UTF-8 text, or holds a control character");
	memcpy(composer->app_name, app_name, length + 1);
	return RESULT_OK;
}

/* Makes the Subject header of each language. */
static enum result read_subjects(struct message_composer *composer, const char *subject)
{
	const char *values[TEMPLATE_VALUES] = {[TEMPLATE_APP_NAME] = composer->app_name};
	struct template *setting = template_parse_line("EMAIL_SUBJECT", subject);
	enum result result = setting == NULL ? RESULT_INVALID : RESULT_OK;

	composer->subject = calloc(composer->templates.count, sizeof *composer->subject);
	if (composer->subject == NULL)
		result = RESULT_FAULT;
	for (size_t i = 0; i < composer->templates.count && result == RESULT_OK; i++) {
		const struct template_set *set = &composer->templates.set[i];
		struct page page = {.text = composer->subject[i], .size = sizeof composer->subject[i]};
		char text[SUBJECT_BYTES];
		size_t length;

		if (template_fill(set->subject != NULL ? set->subject : setting, values, false, text, sizeof text,
				  &length) != RESULT_OK)
			result = refuse("EMAIL_SUBJECT", "it is longer than 1023 bytes with APP_NAME filled in");
		else
			put_subject(&page, text);
	}
	template_free(setting);
	return result;
}

/* Builds a mail in each language with the longest values, so that no mail can fail to fit later. */
static enum result try_all(struct message_composer *composer)
{
	char *out = malloc(MESSAGE_BYTES);
	enum result result = out == NULL ? RESULT_FAULT : RESULT_OK;
	char code[CODE_MAX + 1];
	char recipient[ADDRESS_MAX + 1];
	struct message_request request = {.recipient = recipient,
					  .code = code,
					  .created_ms = INT64_C(4102444800000),
					  .expires_ms = INT64_C(4102444800000) + INT64_C(1440) * 60000};

	memset(code, '8', CODE_MAX);
	code[CODE_MAX] = '\0';
	memset(recipient, 'x', ADDRESS_MAX);
	recipient[ADDRESS_MAX] = '\0';
	for (size_t i = 0; i < composer->templates.count && result == RESULT_OK; i++) {
		struct page page = {.text = out, .size = MESSAGE_BYTES};

		if (build(composer, i, &request, &page) != RESULT_OK) {
			log_event(LOG_ERROR, "template_invalid", LOG_TEXT("locale", composer->templates.set[i].locale),
				  LOG_TEXT("reason", "the filled mail is too long"));
			result = RESULT_INVALID;
		}
	}
	free(out);
	return result;
}

enum result message_composer_new(struct message_composer **composer, const struct message_settings *settings)
{
	struct message_composer *made = calloc(1, sizeof *made);
	enum result worst = RESULT_OK;

	if (made == NULL)
		return RESULT_FAULT;
	/* All are looked at, so that one run of --check names everything. */
	if (read_app_name(made, settings->app_name) != RESULT_OK)
		worst = RESULT_INVALID;
	if (read_from(made, settings->from) != RESULT_OK)
		worst = RESULT_INVALID;
	if (templates_load(&made->templates, settings->template_dir) != RESULT_OK)
		worst = RESULT_INVALID;
	if (read_subjects(made, settings->subject) != RESULT_OK)
		worst = RESULT_INVALID;
	if (worst == RESULT_OK)
		worst = try_all(made);
	if (worst == RESULT_OK)
		*composer = made;
	else
		message_composer_free(made);
	return worst;
}

void message_composer_free(struct message_composer *composer)
{
	if (composer == NULL)
		return;
	templates_free(&composer->templates);
	free(composer->subject);
	free(composer);
}
