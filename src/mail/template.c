/* template.c: a text of the mail with placeholders: parsed once, filled for each mail. */
#include "mail/template.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/complaint.h"
#include "base/utf8.h"

#define PIECES_MAX 64U
#define NO_VALUE TEMPLATE_VALUES
#define PLACE_BYTES 4200U /* a path of the longest kind, and a line */

/* A stretch of fixed text, then a value (NO_VALUE: the end). */
struct piece {
	const char *text;
	size_t length;
	enum template_value value;
};

struct template
{
	enum template_kind kind;
	char *source;
	size_t count;
	struct piece piece[PIECES_MAX];
};

static const char *const value_name[TEMPLATE_VALUES] = {
    [TEMPLATE_APP_NAME] = "app_name",
    [TEMPLATE_CODE] = "code",
    [TEMPLATE_MINUTES] = "minutes",
    [TEMPLATE_REQUESTED_AT] = "requested_at",
    [TEMPLATE_REFERENCE] = "reference",
    [TEMPLATE_PURPOSE] = "purpose",
    [TEMPLATE_RECIPIENT] = "recipient",
    [TEMPLATE_HEADING] = "heading",
    [TEMPLATE_DAY] = "day",
    [TEMPLATE_MONTH] = "month",
    [TEMPLATE_YEAR] = "year",
    [TEMPLATE_HOUR] = "hour",
    [TEMPLATE_MINUTE] = "minute",
};

#define BIT(value) (1U << (value))
#define HEADING_VALUES (BIT(TEMPLATE_APP_NAME) | BIT(TEMPLATE_PURPOSE))
#define SUBJECT_VALUES (HEADING_VALUES | BIT(TEMPLATE_CODE) | BIT(TEMPLATE_REFERENCE))
#define BODY_VALUES (BIT(TEMPLATE_HEADING + 1) - 1U)
#define DATE_VALUES (BIT(TEMPLATE_VALUES) - BIT(TEMPLATE_DAY))

static const struct rule {
	unsigned allowed, required;
	const char *controls; /* characters besides text */
} rules[] = {
    [TEMPLATE_OF_SUBJECT] = {SUBJECT_VALUES, 0, ""},
    [TEMPLATE_OF_HEADING] = {HEADING_VALUES, 0, ""},
    [TEMPLATE_OF_DATE] = {DATE_VALUES, BIT(TEMPLATE_DAY) | BIT(TEMPLATE_MONTH), ""},
    [TEMPLATE_OF_PLAIN] = {BODY_VALUES, BIT(TEMPLATE_CODE), "\n\t"},
    [TEMPLATE_OF_HTML] = {BODY_VALUES, BIT(TEMPLATE_CODE), "\n\t"},
};

/* --- Parsing --- */

void template_complain(const char *name, size_t line, const char *reason)
{
	char place[PLACE_BYTES];

	(void)snprintf(place, sizeof(place), "%s:%zu", name, line);
	complain(line == 0 ? name : place, "%s", reason);
}

static size_t line_of(const char *text, size_t offset)
{
	size_t line = 1;

	for (size_t i = 0; i < offset; i++)
		line += text[i] == '\n';
	return line;
}

static enum template_value find_value(const char *name, size_t length)
{
	for (unsigned v = 0; v < TEMPLATE_VALUES; v++)
		if (strlen(value_name[v]) == length && memcmp(value_name[v], name, length) == 0)
			return (enum template_value)v;
	return NO_VALUE;
}

static void put_names(struct text *out, unsigned values)
{
	for (unsigned v = 0; v < TEMPLATE_VALUES; v++)
		if ((values & BIT(v)) != 0)
			text_printf(out, " {{%s}}", value_name[v]);
}

/* Splits the source at its placeholders. false, with what is wrong at *where. */
static bool split(struct template *template, struct text *reason, const char **where)
{
	const struct rule *rule = &rules[template->kind];
	const char *at = template->source;
	unsigned missing = rule->required;

	for (;;) {
		const char *open = strstr(at, "{{");
		const char *close = open == NULL ? NULL : strstr(open, "}}");
		struct piece *piece = &template->piece[template->count];

		*where = open == NULL ? at : open;
		if (template->count == PIECES_MAX || (open != NULL && close == NULL)) {
			text_put(reason, close == NULL ? "{{ without }}" : "too many placeholders");
			return false;
		}
		piece->text = at;
		piece->length = open == NULL ? strlen(at) : (size_t)(open - at);
		piece->value = open == NULL ? NO_VALUE : find_value(open + 2, (size_t)(close - open - 2));
		template->count++;
		if (open == NULL)
			break;
		if (piece->value == NO_VALUE || (rule->allowed & BIT(piece->value)) == 0) {
			text_put(reason, piece->value == NO_VALUE ? "unknown placeholder; there are"
								  : "this placeholder has no value here; there are");
			put_names(reason, rule->allowed);
			return false;
		}
		missing &= ~BIT(piece->value);
		at = close + 2;
	}
	if (missing != 0) {
		text_put(reason, "missing:");
		put_names(reason, missing);
	}
	return missing == 0;
}

/* Is the source text as a mail can hold it, and are its placeholders right? Complains if not. */
static bool is_sound(struct template *template, const char *name, size_t length)
{
	const char *source = template->source;
	const char *where = source;
	char reason_bytes[512];
	struct text reason;
	size_t bad = 0;

	text_init(&reason, reason_bytes, sizeof(reason_bytes));
	if (strncmp(source, "\xEF\xBB\xBF", 3) == 0)
		text_put(&reason, "begins with a byte order mark (U+FEFF): save it without one");
	else if (!utf8_is_text(source, length, rules[template->kind].controls, &bad))
		text_put(&reason, "not UTF-8 text, or a control character");
	else if (split(template, &reason, &where))
		return true;
	template_complain(name, line_of(source, bad > 0 ? bad : (size_t)(where - source)), reason.bytes);
	return false;
}

struct template *template_parse(enum template_kind kind, const char *name, const char *source, size_t length)
{
	struct template *template = calloc(1, sizeof(*template));

	if (template != NULL)
		template->source = malloc(length + 1);
	if (template == NULL || template->source == NULL) {
		template_complain(name, 0, "out of memory");
		template_free(template);
		return NULL;
	}
	template->kind = kind;
	memcpy(template->source, source, length);
	template->source[length] = '\0';
	if (is_sound(template, name, length))
		return template;
	template_free(template);
	return NULL;
}

void template_free(struct template *template)
{
	if (template == NULL)
		return;
	free(template->source);
	free(template);
}

/* --- Filling --- */

/* The HTML entity of a byte, or NULL. */
static const char *entity(char byte)
{
	switch (byte) {
	case '&':
		return "&amp;";
	case '<':
		return "&lt;";
	case '>':
		return "&gt;";
	case '"':
		return "&quot;";
	case '\'':
		return "&#39;";
	default:
		return NULL;
	}
}

static void put_escaped(struct text *out, const char *value)
{
	for (; *value != '\0'; value++) {
		const char *instead = entity(*value);

		if (instead != NULL)
			text_put(out, instead);
		else
			text_put_bytes(out, value, 1);
	}
}

void template_fill(const struct template *template, const char *const values[TEMPLATE_VALUES], struct text *out)
{
	for (size_t i = 0; i < template->count; i++) {
		const struct piece *piece = &template->piece[i];

		text_put_bytes(out, piece->text, piece->length);
		if (piece->value == NO_VALUE)
			continue;
		if (template->kind == TEMPLATE_OF_HTML)
			put_escaped(out, values[piece->value]);
		else
			text_put(out, values[piece->value]);
	}
}
