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
#include "mail/template.h"
#include "otp/code.h"

#define SUBJECT_BYTES 1024U
#define HEADER_BYTES 4096U
#define SCRATCH_BYTES 65536U

struct message_composer {
	struct templates templates;
	const char *app_name;
	char domain[ADDRESS_MAX + 1];  /* of the sender, for Message-ID */
	char from[HEADER_BYTES];       /* the header "From: ...", ready */
	char (*subject)[HEADER_BYTES]; /* the header "Subject: ..." of each language, ready */
	char scratch[SCRATCH_BYTES];   /* a filled template; wiped after use */
};

static void put_headers(struct text *page, const struct message_composer *composer, size_t language,
			const struct message_request *request, const struct tm *utc)
{
	char id[TOKEN_ID_TEXT + 1];

	token_id_write(request->id, id);
	text_put(page, "Date: ");
	mime_put_date(page, utc);
	text_printf(page,
		    "\r\n%sTo: %s\r\nMessage-ID: <%s@%s>\r\n%s"
		    "Auto-Submitted: auto-generated\r\n"
		    "X-Auto-Response-Suppress: All\r\n"
		    "MIME-Version: 1.0\r\n"
		    "Content-Type: multipart/alternative;\r\n boundary=\"=_%s\"\r\n\r\n",
		    composer->from, request->recipient, id, composer->domain, composer->subject[language], id);
}

/* One body. The boundary begins with "=_", which quoted-printable never contains (RFC 2045 6.7). */
static void put_part(struct text *page, struct message_composer *composer, const char *id, const char *type,
		     const struct template *template, const char *const values[TEMPLATE_VALUES])
{
	struct text body;

	text_printf(page,
		    "--=_%s\r\nContent-Type: %s; charset=utf-8\r\n"
		    "Content-Transfer-Encoding: quoted-printable\r\n\r\n",
		    id, type);
	text_init(&body, composer->scratch, SCRATCH_BYTES);
	template_fill(template, values, strcmp(type, "text/html") == 0, &body);
	if (body.is_full)
		page->is_full = true;
	mime_put_quoted(page, body.bytes, body.length);
	explicit_bzero(body.bytes, body.length);
}

static enum result build(struct message_composer *composer, size_t language, const struct message_request *request,
			 struct text *page)
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
	(void)snprintf(minutes_text, sizeof(minutes_text), "%lld", minutes < 1 ? 1 : minutes);
	(void)snprintf(requested_at, sizeof(requested_at), "%04d-%02d-%02d %02d:%02d UTC", utc.tm_year + 1900,
		       utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min);
	put_headers(page, composer, language, request, &utc);
	put_part(page, composer, id, "text/plain", set->text, values);
	put_part(page, composer, id, "text/html", set->html, values);
	text_printf(page, "--=_%s--\r\n", id);
	return page->is_full ? RESULT_FAULT : RESULT_OK;
}

enum result message_build(struct message_composer *composer, const struct message_request *request, char *out,
			  size_t size, size_t *length)
{
	const struct template_set *set = templates_choose(&composer->templates, request->locale);
	struct text page;
	enum result result;

	text_init(&page, out, size);
	result = build(composer, (size_t)(set - composer->templates.set), request, &page);
	if (result == RESULT_OK)
		*length = page.length;
	return result;
}

static enum result refuse(const char *place, const char *reason)
{
	complain(place, "%s", reason);
	return RESULT_INVALID;
}

/* Makes the Subject header of one language. */
static enum result make_subject(struct message_composer *composer, size_t language, const struct template *template)
{
	const char *values[TEMPLATE_VALUES] = {[TEMPLATE_APP_NAME] = composer->app_name};
	char bytes[SUBJECT_BYTES];
	struct text subject, header;

	text_init(&subject, bytes, sizeof(bytes));
	template_fill(template, values, false, &subject);
	text_init(&header, composer->subject[language], sizeof(composer->subject[language]));
	mime_put_subject(&header, bytes);
	return subject.is_full || header.is_full
		   ? refuse("EMAIL_SUBJECT", "must be at most 1023 bytes long with APP_NAME filled in")
		   : RESULT_OK;
}

static enum result make_subjects(struct message_composer *composer, const char *line)
{
	struct template *setting = template_parse_line("EMAIL_SUBJECT", line);
	enum result result = setting == NULL ? RESULT_INVALID : RESULT_OK;

	composer->subject = calloc(composer->templates.count, sizeof(*composer->subject));
	if (composer->subject == NULL)
		result = RESULT_FAULT;
	for (size_t i = 0; i < composer->templates.count && result == RESULT_OK; i++) {
		const struct template_set *set = &composer->templates.set[i];

		result = make_subject(composer, i, set->subject != NULL ? set->subject : setting);
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
		struct text page;

		text_init(&page, out, MESSAGE_BYTES);
		if (build(composer, i, &request, &page) != RESULT_OK)
			result = refuse(composer->templates.set[i].locale,
					"a mail with this language's texts is too long when filled");
	}
	free(out);
	return result;
}

enum result message_composer_new(struct message_composer **composer, const struct message_settings *settings)
{
	struct message_composer *made = calloc(1, sizeof(*made));
	const char *domain = strrchr(settings->from->address, '@') + 1;
	enum result worst = RESULT_OK;
	struct text from;

	if (made == NULL)
		return RESULT_FAULT;
	made->app_name = settings->app_name;
	memcpy(made->domain, domain, strlen(domain) + 1);
	text_init(&from, made->from, sizeof(made->from));
	mime_put_from(&from, settings->from);
	/* Both are looked at, so that one run of --check names everything. */
	if (templates_load(&made->templates, settings->template_dir) != RESULT_OK)
		worst = RESULT_INVALID;
	if (make_subjects(made, settings->subject) != RESULT_OK)
		worst = RESULT_INVALID;
	if (worst == RESULT_OK)
		worst = from.is_full ? refuse("EMAIL_FROM", "the header is too long") : try_all(made);
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
