/* template.c: the mail texts by language, loaded once, and the filling of their placeholders. */
#include "mail/template.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/complaint.h"
#include "base/file.h"
#include "base/utf8.h"

#define PIECES_MAX 64U
#define NO_VALUE TEMPLATE_VALUES

/* A stretch of fixed text, then a value (NO_VALUE: the end). */
struct piece {
	const char *text;
	size_t length;
	enum template_value value;
};

struct template
{
	char *source;
	size_t count;
	struct piece piece[PIECES_MAX];
};

static const char *const value_name[TEMPLATE_VALUES] = {
    [TEMPLATE_APP_NAME] = "app_name",
    [TEMPLATE_CODE] = "code",
    [TEMPLATE_MINUTES] = "minutes",
    [TEMPLATE_REQUESTED_AT] = "requested_at",
};

#define BIT(value) (1U << (value))
#define ALL_VALUES (BIT(TEMPLATE_VALUES) - 1U)

/* line 0: the file as a whole. */
static void refuse(const char *file, size_t line, const char *reason)
{
	char place[4200];

	(void)snprintf(place, sizeof(place), "%s:%zu", file, line);
	if (line == 0)
		place[strlen(place) - 2] = '\0';
	complain(place, "%s", reason);
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

/* Splits source (NUL-terminated, clean) at its placeholders. Returns NULL, or what is wrong at *where. */
static const char *split(struct template *template, unsigned allowed, unsigned required, const char **where)
{
	const char *at = template->source;
	unsigned seen = 0;

	for (;;) {
		const char *open = strstr(at, "{{");
		const char *close = open == NULL ? NULL : strstr(open, "}}");
		struct piece *piece = &template->piece[template->count];

		*where = open == NULL ? at : open;
		if (template->count == PIECES_MAX)
			return "too many placeholders";
		if (open != NULL && close == NULL)
			return "{{ without }}";
		*piece =
		    (struct piece){.text = at,
				   .length = open == NULL ? strlen(at) : (size_t)(open - at),
				   .value = open == NULL ? NO_VALUE : find_value(open + 2, (size_t)(close - open - 2))};
		template->count++;
		if (open == NULL)
			break;
		if (piece->value == NO_VALUE)
			return "unknown placeholder; there are {{app_name}} {{code}} {{minutes}} {{requested_at}}";
		if ((allowed & BIT(piece->value)) == 0)
			return "only {{app_name}} is allowed here";
		seen |= BIT(piece->value);
		at = close + 2;
	}
	return (required & ~seen) != 0 ? "{{code}} is missing" : NULL;
}

/* Makes a template of source, which it takes over. */
static struct template *parse(const char *name, char *source, size_t length, bool lines, unsigned allowed,
			      unsigned required)
{
	struct template *template = calloc(1, sizeof(*template));
	const char *reason;
	const char *where;
	size_t bad = 0;

	if (template == NULL) {
		free(source);
		refuse(name, 0, "out of memory");
		return NULL;
	}
	template->source = source;
	if (strncmp(source, "\xEF\xBB\xBF", 3) == 0) {
		refuse(name, 1, "begins with a byte order mark (U+FEFF): save it without one");
		goto refuse;
	}
	if (!utf8_is_text(source, length, lines ? "\n\t" : "", &bad)) {
		refuse(name, line_of(source, bad), "not UTF-8 text, or a control character");
		goto refuse;
	}
	reason = split(template, allowed, required, &where);
	if (reason != NULL) {
		refuse(name, line_of(source, (size_t)(where - source)), reason);
		goto refuse;
	}
	return template;
refuse:
	template_free(template);
	return NULL;
}

struct template *template_parse_line(const char *name, const char *line)
{
	char *source = strdup(line);

	if (source == NULL) {
		refuse(name, 0, "out of memory");
		return NULL;
	}
	return parse(name, source, strlen(source), false, BIT(TEMPLATE_APP_NAME), 0);
}

void template_free(struct template *template)
{
	if (template == NULL)
		return;
	free(template->source);
	free(template);
}

/* Turns CR LF into LF in place. */
static size_t unify_line_ends(char *text, size_t length)
{
	size_t kept = 0;

	for (size_t i = 0; i < length; i++)
		if (!(text[i] == '\r' && i + 1 < length && text[i + 1] == '\n'))
			text[kept++] = text[i];
	text[kept] = '\0';
	return kept;
}

/* Loads dir/locale/name. optional: an absent file is RESULT_OK with *template NULL. */
static enum result load_file(struct template **template, const char *dir, const char *locale, const char *name,
			     bool optional)
{
	bool subject = strcmp(name, "subject.txt") == 0;
	unsigned allowed = subject ? BIT(TEMPLATE_APP_NAME) : ALL_VALUES;
	char path[4096];
	size_t length = 0;
	char *source;
	int wrote = snprintf(path, sizeof(path), "%s/%s/%s", dir, locale, name);

	if (wrote < 0 || (size_t)wrote >= sizeof(path)) {
		refuse(dir, 0, "path too long");
		return RESULT_INVALID;
	}
	source = file_read(path, TEMPLATE_FILE_MAX, &length);
	if (source == NULL) {
		if (optional && errno == ENOENT)
			return RESULT_OK;
		refuse(path, 0, strerror(errno));
		return RESULT_INVALID;
	}
	length = unify_line_ends(source, length);
	if (subject && length > 0 && source[length - 1] == '\n')
		source[--length] = '\0';
	*template = parse(path, source, length, !subject, allowed, subject ? 0 : BIT(TEMPLATE_CODE));
	return *template == NULL ? RESULT_INVALID : RESULT_OK;
}

static void set_free(struct template_set *set)
{
	template_free(set->subject);
	template_free(set->text);
	template_free(set->html);
}

static enum result load_set(struct template_set *set, const char *dir, const char *locale)
{
	enum result worst = RESULT_OK;

	*set = (struct template_set){.subject = NULL};
	memcpy(set->locale, locale, strlen(locale) + 1);
	if (load_file(&set->text, dir, locale, "mail.txt", false) != RESULT_OK)
		worst = RESULT_INVALID;
	if (load_file(&set->html, dir, locale, "mail.html", false) != RESULT_OK)
		worst = RESULT_INVALID;
	if (load_file(&set->subject, dir, locale, "subject.txt", true) != RESULT_OK)
		worst = RESULT_INVALID;
	if (worst != RESULT_OK)
		set_free(set);
	return worst;
}

/* Letters, digits and dashes, beginning with a letter, and short enough. */
static bool is_language_tag(const char *name)
{
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");

	return length > 0 && name[length] == '\0' && length < LOCALE_TAG_BYTES && name[0] > '9';
}

static struct template_set *find_set(const struct templates *templates, const char *locale, size_t length)
{
	for (size_t i = 0; i < templates->count; i++)
		if (strncasecmp(templates->set[i].locale, locale, length) == 0 &&
		    templates->set[i].locale[length] == '\0')
			return &templates->set[i];
	return NULL;
}

/* Loads every folder; logs what is wrong and goes on, so that one run names it all. */
static enum result load_folders(struct templates *templates, const char *dir, DIR *folder)
{
	enum result worst = RESULT_OK;
	struct dirent *entry;

	while ((entry = readdir(folder)) != NULL) {
		struct template_set *grown;

		if (!is_language_tag(entry->d_name) || entry->d_type == DT_REG)
			continue;
		grown = realloc(templates->set, (templates->count + 1) * sizeof(*grown));
		if (grown == NULL)
			return RESULT_FAULT;
		templates->set = grown;
		if (load_set(&grown[templates->count], dir, entry->d_name) == RESULT_OK)
			templates->count++;
		else
			worst = RESULT_INVALID;
	}
	return worst;
}

enum result templates_load(struct templates *templates, const char *dir)
{
	struct templates loaded = {.set = NULL};
	DIR *folder = opendir(dir);
	enum result result;

	if (folder == NULL) {
		char reason[128];

		(void)snprintf(reason, sizeof(reason), "%s: set TEMPLATE_DIR to the folder of templates",
			       strerror(errno));
		refuse(dir, 0, reason);
		return RESULT_INVALID;
	}
	result = load_folders(&loaded, dir, folder);
	closedir(folder);
	if (result == RESULT_OK && find_set(&loaded, TEMPLATE_DEFAULT, strlen(TEMPLATE_DEFAULT)) == NULL) {
		refuse(dir, 0, "there is no folder " TEMPLATE_DEFAULT);
		result = RESULT_INVALID;
	}
	if (result == RESULT_OK)
		*templates = loaded;
	else
		templates_free(&loaded);
	return result;
}

void templates_free(struct templates *templates)
{
	for (size_t i = 0; i < templates->count; i++)
		set_free(&templates->set[i]);
	free(templates->set);
	*templates = (struct templates){.set = NULL};
}

static const char *tag_of(const void *templates, size_t i)
{
	return ((const struct templates *)templates)->set[i].locale;
}

const struct template_set *templates_choose(const struct templates *templates, const char *locale)
{
	size_t found = locale_choose(locale, templates->count, tag_of, templates);

	return found < templates->count ? &templates->set[found]
					: find_set(templates, TEMPLATE_DEFAULT, strlen(TEMPLATE_DEFAULT));
}

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

void template_fill(const struct template *template, const char *const values[TEMPLATE_VALUES], bool escape,
		   struct text *out)
{
	for (size_t i = 0; i < template->count; i++) {
		const struct piece *piece = &template->piece[i];

		text_put_bytes(out, piece->text, piece->length);
		if (piece->value == NO_VALUE)
			continue;
		if (escape)
			put_escaped(out, values[piece->value]);
		else
			text_put(out, values[piece->value]);
	}
}
