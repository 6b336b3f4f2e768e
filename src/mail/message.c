/* message.c: the bytes of a mail: headers and both bodies, a pure function of composer and request.
   Formats: RFC 5322 (headers), 2045 (quoted-printable), 2046 (multipart), 2047 (encoded words), 3834 (Auto-Submitted).
 */
#include "mail/message.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/complaint.h"
#include "base/text.h"
#include "mail/mime.h"
#include "otp/code.h"
#include "otp/reference.h"

#define LINE_BYTES 1024U /* of a subject or heading, filled */
#define DATE_BYTES 1024U
#define HEADER_BYTES 4096U
#define SCRATCH_BYTES 65536U /* of a filled body */

struct message_composer {
	struct texts_choice texts;
	struct template *subject; /* for texts that have none */
	char *app_name;
	char sender[ADDRESS_MAX + 1];
	char from[HEADER_BYTES]; /* the headers From and, if there is one, Reply-To, ready */
};

/* --- Building --- */

/* What one mail fills its texts with. */
struct filling {
	const char *value[TEMPLATE_VALUES];
	struct tm utc;
	char id[TOKEN_ID_TEXT + 1];
	char minutes[24];
	char requested_at[DATE_BYTES];
	char reference[REFERENCE_TEXT + 1];
	char heading[LINE_BYTES];
};

/* false: the times are nonsense, or a line is too long. */
static bool prepare(struct filling *filling, const struct message_composer *composer, const struct texts_files *files,
		    const struct message_request *request)
{
	time_t created = (time_t)(request->created_ms / 1000);
	long long minutes = (request->expires_ms - request->created_ms + 30000) / 60000;
	struct text date, heading;

	if (gmtime_r(&created, &filling->utc) == NULL || filling->utc.tm_year < 70 || filling->utc.tm_year > 8099 ||
	    minutes < 0)
		return false;
	token_id_write(request->id, filling->id);
	reference_write(request->challenge, filling->reference);
	(void)snprintf(filling->minutes, sizeof(filling->minutes), "%lld", minutes < 1 ? 1 : minutes);
	text_init(&date, filling->requested_at, sizeof(filling->requested_at));
	date_form_put(files->date, &filling->utc, &date);
	memset(filling->value, 0, sizeof(filling->value));
	filling->value[TEMPLATE_APP_NAME] = composer->app_name;
	filling->value[TEMPLATE_CODE] = request->code;
	filling->value[TEMPLATE_MINUTES] = filling->minutes;
	filling->value[TEMPLATE_REQUESTED_AT] = filling->requested_at;
	filling->value[TEMPLATE_REFERENCE] = filling->reference;
	filling->value[TEMPLATE_PURPOSE] = request->purpose;
	filling->value[TEMPLATE_RECIPIENT] = request->recipient;
	filling->value[TEMPLATE_HEADING] = filling->heading;
	text_init(&heading, filling->heading, sizeof(filling->heading));
	if (files->heading != NULL)
		template_fill(files->heading, filling->value, &heading);
	else
		text_put(&heading, composer->app_name);
	return !date.is_full && !heading.is_full;
}

static void put_subject(struct text *page, const struct template *template, const struct filling *filling)
{
	char bytes[LINE_BYTES];
	struct text subject;

	text_init(&subject, bytes, sizeof(bytes));
	template_fill(template, filling->value, &subject);
	if (subject.is_full)
		page->is_full = true;
	mime_put_subject(page, bytes);
	explicit_bzero(bytes, subject.length);
}

/* The X- headers ask for no answer by a machine, and Gmail not to fold codes with the same subject into one. */
static void put_headers(struct text *page, const struct message_composer *composer, const struct template *subject,
			const struct message_request *request, const struct filling *filling)
{
	text_put(page, "Date: ");
	mime_put_date(page, &filling->utc);
	text_printf(page, "\r\n%sTo: %s\r\nMessage-ID: <%s@%s>\r\n", composer->from, request->recipient, filling->id,
		    strrchr(composer->sender, '@') + 1);
	put_subject(page, subject, filling);
	text_printf(page,
		    "Auto-Submitted: auto-generated\r\n"
		    "X-Auto-Response-Suppress: All\r\n"
		    "X-Entity-Ref-ID: %s\r\n"
		    "MIME-Version: 1.0\r\n"
		    "Content-Type: multipart/alternative;\r\n boundary=\"=_%s\"\r\n\r\n",
		    filling->id, filling->id);
}

/* One body. The boundary begins with "=_", which quoted-printable never contains (RFC 2045 6.7). */
static void put_part(struct text *page, const char *type, const struct template *template,
		     const struct filling *filling)
{
	char scratch[SCRATCH_BYTES];
	struct text body;

	text_printf(page,
		    "--=_%s\r\nContent-Type: %s; charset=utf-8\r\n"
		    "Content-Transfer-Encoding: quoted-printable\r\n\r\n",
		    filling->id, type);
	text_init(&body, scratch, sizeof(scratch));
	template_fill(template, filling->value, &body);
	if (body.is_full)
		page->is_full = true;
	mime_put_quoted(page, body.bytes, body.length);
	explicit_bzero(body.bytes, body.length);
}

static enum result build(const struct message_composer *composer, const struct texts_files *files,
			 const struct message_request *request, struct text *page)
{
	const struct template *subject = files->subject != NULL ? files->subject : composer->subject;
	struct filling filling;

	if (!prepare(&filling, composer, files, request))
		return RESULT_FAULT;
	put_headers(page, composer, subject, request, &filling);
	put_part(page, "text/plain", files->plain, &filling);
	put_part(page, "text/html", files->html, &filling);
	text_printf(page, "--=_%s--\r\n", filling.id);
	return page->is_full ? RESULT_FAULT : RESULT_OK;
}

enum result message_build(const struct message_composer *composer, const struct message_request *request, char *out,
			  size_t size, size_t *length)
{
	struct text page;
	enum result result;

	text_init(&page, out, size);
	result = build(composer, texts_choose(&composer->texts, request->locale, request->purpose), request, &page);
	if (result == RESULT_OK)
		*length = page.length;
	return result;
}

/* --- The composer --- */

/* The last day of the month whose date takes the most bytes. */
static int64_t longest_date_ms(const struct texts_files *files)
{
	struct tm utc = {.tm_year = 200, .tm_mon = date_form_longest_month(files->date), .tm_mday = 28};

	return (int64_t)timegm(&utc) * 1000;
}

/* Builds a mail with the longest values for each text, so that no mail can fail to fit later. */
static enum result try_all(const struct message_composer *composer, const char *place)
{
	char *out = malloc(MESSAGE_BYTES);
	enum result result = out == NULL ? RESULT_FAULT : RESULT_OK;
	char code[CODE_MAX + 1];
	char purpose[SLUG_MAX + 1];
	char recipient[ADDRESS_MAX + 1];
	struct message_request request = {.recipient = recipient, .code = code, .purpose = purpose};

	(void)snprintf(code, sizeof(code), "%0*d", (int)CODE_MAX, 8);
	memset(purpose, 'x', SLUG_MAX);
	purpose[SLUG_MAX] = '\0';
	memset(recipient, '&', ADDRESS_MAX); /* the longest when escaped */
	recipient[ADDRESS_MAX] = '\0';
	for (size_t i = 0; i < composer->texts.count && result == RESULT_OK; i++) {
		const struct texts_folder *folder = &composer->texts.folder[i];
		struct text page;

		request.created_ms = longest_date_ms(&folder->files);
		request.expires_ms = request.created_ms + INT64_C(1440) * 60000;
		text_init(&page, out, MESSAGE_BYTES);
		if (build(composer, &folder->files, &request, &page) == RESULT_OK)
			continue;
		complain(place, "a mail with the texts of %s%s%s is too long when filled: shorten them, or the subject",
			 folder->locale, folder->purpose[0] != '\0' ? "/" : "", folder->purpose);
		result = RESULT_INVALID;
	}
	free(out);
	return result;
}

static enum result fill_in(struct message_composer *composer, const struct message_settings *settings)
{
	enum result result = texts_merge(&composer->texts, settings->own, settings->shared, settings->locale);
	struct text from;

	composer->app_name = strdup(settings->app_name);
	composer->subject =
	    template_parse(TEMPLATE_OF_SUBJECT, settings->subject_place, settings->subject, strlen(settings->subject));
	memcpy(composer->sender, settings->from->address, sizeof(composer->sender));
	text_init(&from, composer->from, sizeof(composer->from));
	mime_put_mailbox(&from, "From: ", settings->from);
	if (settings->reply_to->address[0] != '\0')
		mime_put_mailbox(&from, "Reply-To: ", settings->reply_to);
	if (result != RESULT_OK || composer->subject == NULL)
		return RESULT_INVALID;
	return composer->app_name == NULL || from.is_full ? RESULT_FAULT : try_all(composer, settings->place);
}

enum result message_composer_new(struct message_composer **composer, const struct message_settings *settings)
{
	struct message_composer *made = calloc(1, sizeof(*made));
	enum result result = made == NULL ? RESULT_FAULT : fill_in(made, settings);

	if (result == RESULT_OK)
		*composer = made;
	else
		message_composer_free(made);
	return result;
}

void message_composer_free(struct message_composer *composer)
{
	if (composer == NULL)
		return;
	texts_choice_free(&composer->texts);
	template_free(composer->subject);
	free(composer->app_name);
	free(composer);
}

const char *message_composer_sender(const struct message_composer *composer)
{
	return composer->sender;
}
