/* texts.c: folders with the mail's texts by language and purpose, loaded once, and which of them a mail gets. */
#include "mail/texts.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/complaint.h"
#include "base/file.h"

#define PATH_BYTES 4096U

/* --- Files --- */

/* Turns CR LF into LF in place. */
static size_t unify_line_ends(char *text, size_t length)
{
	size_t kept = 0;

	for (size_t i = 0; i < length; i++)
		if (!(text[i] == '\r' && i + 1 < length && text[i + 1] == '\n'))
			text[kept++] = text[i];
	return kept;
}

/* The path of dir/name. false, with a complaint: too long. */
static bool join(char path[static PATH_BYTES], const char *dir, const char *name)
{
	int wrote = snprintf(path, PATH_BYTES, "%s/%s", dir, name);
	bool fits = wrote >= 0 && (size_t)wrote < PATH_BYTES;

	if (!fits)
		template_complain(dir, 0, "path too long");
	return fits;
}

static void *parse_line(enum template_kind kind, const char *path, const char *source, size_t length)
{
	if (length > 0 && source[length - 1] == '\n')
		length--;
	return template_parse(kind, path, source, length);
}

static void *parse_subject(const char *path, const char *source, size_t length)
{
	return parse_line(TEMPLATE_OF_SUBJECT, path, source, length);
}

static void *parse_heading(const char *path, const char *source, size_t length)
{
	return parse_line(TEMPLATE_OF_HEADING, path, source, length);
}

static void *parse_plain(const char *path, const char *source, size_t length)
{
	return template_parse(TEMPLATE_OF_PLAIN, path, source, length);
}

static void *parse_html(const char *path, const char *source, size_t length)
{
	return template_parse(TEMPLATE_OF_HTML, path, source, length);
}

static void *parse_date(const char *path, const char *source, size_t length)
{
	return date_form_parse(path, source, length);
}

/* Loads dir/name if it is there; NULL also after a complaint, which is counted. */
static void *load_file(const char *dir, const char *name,
		       void *(*parse)(const char *path, const char *source, size_t length), unsigned *complaints)
{
	char path[PATH_BYTES];
	size_t length = 0;
	char *source = NULL;
	void *parsed = NULL;

	if (!join(path, dir, name)) {
		(*complaints)++;
		return NULL;
	}
	source = file_read(path, TEXTS_FILE_MAX, &length);
	if (source != NULL)
		parsed = parse(path, source, unify_line_ends(source, length));
	else if (errno == ENOENT)
		return NULL;
	else
		template_complain(path, 0, strerror(errno));
	*complaints += parsed == NULL;
	free(source);
	return parsed;
}

static unsigned load_files(struct texts_files *files, const char *dir)
{
	unsigned complaints = 0;

	files->subject = load_file(dir, "subject.txt", parse_subject, &complaints);
	files->heading = load_file(dir, "heading.txt", parse_heading, &complaints);
	files->plain = load_file(dir, "mail.txt", parse_plain, &complaints);
	files->html = load_file(dir, "mail.html", parse_html, &complaints);
	files->date = load_file(dir, "date.txt", parse_date, &complaints);
	return complaints;
}

static void free_files(struct texts_files *files)
{
	template_free(files->subject);
	template_free(files->heading);
	template_free(files->plain);
	template_free(files->html);
	date_form_free(files->date);
}

/* --- Folders --- */

/* Letters, digits and dashes, beginning with a letter, and short enough. */
static int is_language(const struct dirent *entry)
{
	const char *name = entry->d_name;
	size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");

	return entry->d_type != DT_REG && length > 0 && name[length] == '\0' && length < LOCALE_TAG_BYTES &&
	       name[0] > '9';
}

static int is_purpose(const struct dirent *entry)
{
	return entry->d_type != DT_REG && slug_is(entry->d_name, strlen(entry->d_name));
}

static enum result load_folder(struct texts *texts, const char *dir, const char *locale, const char *purpose)
{
	struct texts_folder *grown = realloc(texts->folder, (texts->count + 1) * sizeof(*grown));
	struct texts_folder *folder;

	if (grown == NULL)
		return RESULT_FAULT;
	texts->folder = grown;
	folder = &grown[texts->count++];
	*folder = (struct texts_folder){.purpose = ""};
	(void)snprintf(folder->locale, sizeof(folder->locale), "%s", locale);
	(void)snprintf(folder->purpose, sizeof(folder->purpose), "%s", purpose);
	return load_files(&folder->files, dir) == 0 ? RESULT_OK : RESULT_INVALID;
}

typedef enum result loader(struct texts *texts, const char *path, const char *locale, const char *name);

/* Loads the folders of dir in order. Complains of what is wrong and goes on, so that one run names it all. locale: that
   they belong to. */
static enum result each_folder(struct texts *texts, const char *dir, const char *locale,
			       int (*is_meant)(const struct dirent *entry), loader *load)
{
	struct dirent **entry = NULL;
	int count = scandir(dir, &entry, is_meant, alphasort);
	enum result worst = RESULT_OK;

	if (count < 0) {
		complain(dir, "%s: set TEMPLATE_DIR, or the templates of the application, to a folder of mail texts",
			 strerror(errno));
		return RESULT_INVALID;
	}
	for (int i = 0; i < count; i++) {
		char path[PATH_BYTES];

		if (!join(path, dir, entry[i]->d_name) || load(texts, path, locale, entry[i]->d_name) != RESULT_OK)
			worst = RESULT_INVALID;
		free(entry[i]);
	}
	free((void *)entry);
	return worst;
}

static enum result load_language(struct texts *texts, const char *path, const char *none, const char *locale)
{
	enum result general = load_folder(texts, path, locale, none);
	enum result purposes = each_folder(texts, path, locale, is_purpose, load_folder);

	return general != RESULT_OK ? general : purposes;
}

enum result texts_load(struct texts *texts, const char *dir)
{
	struct texts loaded = {.dir = dir};
	enum result result = each_folder(&loaded, dir, "", is_language, load_language);

	if (result == RESULT_OK)
		*texts = loaded;
	else
		texts_free(&loaded);
	return result;
}

void texts_free(struct texts *texts)
{
	for (size_t i = 0; i < texts->count; i++)
		free_files(&texts->folder[i].files);
	free(texts->folder);
	*texts = (struct texts){.folder = NULL};
}

/* --- Both trees as one --- */

static bool is_folder(const struct texts_folder *folder, const char *locale, const char *purpose)
{
	return strcmp(folder->purpose, purpose) == 0 && strcasecmp(folder->locale, locale) == 0;
}

static void fill_gaps(struct texts_files *files, const struct texts *texts, const char *locale, const char *purpose)
{
	for (size_t i = 0; i < texts->count; i++) {
		const struct texts_folder *folder = &texts->folder[i];

		if (!is_folder(folder, locale, purpose))
			continue;
		files->subject = files->subject != NULL ? files->subject : folder->files.subject;
		files->heading = files->heading != NULL ? files->heading : folder->files.heading;
		files->plain = files->plain != NULL ? files->plain : folder->files.plain;
		files->html = files->html != NULL ? files->html : folder->files.html;
		files->date = files->date != NULL ? files->date : folder->files.date;
	}
}

static void say_missing(const struct texts *texts, const char *locale, const char *name)
{
	char path[PATH_BYTES];

	(void)snprintf(path, sizeof(path), "%s/%s/%s", texts->dir, locale, name);
	template_complain(path, 0, strerror(ENOENT));
}

/* Adds a folder of one of the trees with its gaps filled, unless it is there. */
static enum result merge_folder(struct texts_choice *choice, const struct texts *const trees[], size_t t, size_t i)
{
	const struct texts_folder *from = &trees[t]->folder[i];
	struct texts_folder *folder = &choice->folder[choice->count];

	for (size_t j = 0; j < choice->count; j++)
		if (is_folder(&choice->folder[j], from->locale, from->purpose))
			return RESULT_OK;
	*folder = *from;
	folder->files = (struct texts_files){.subject = NULL};
	for (size_t tree = 0; tree < TEXTS_TREES; tree++) {
		fill_gaps(&folder->files, trees[tree], from->locale, from->purpose);
		fill_gaps(&folder->files, trees[tree], from->locale, "");
	}
	choice->count++;
	if (folder->files.plain == NULL)
		say_missing(trees[t], from->locale, "mail.txt");
	if (folder->files.html == NULL)
		say_missing(trees[t], from->locale, "mail.html");
	return folder->files.plain != NULL && folder->files.html != NULL ? RESULT_OK : RESULT_INVALID;
}

static const char *tag_of(const void *choice, size_t i)
{
	return ((const struct texts_choice *)choice)->folder[i].locale;
}

static size_t find_language(const struct texts_choice *choice, const char *wanted)
{
	return locale_choose(wanted, choice->languages, tag_of, choice);
}

/* The language of mails for which no other is found. */
static enum result choose_fallback(struct texts_choice *choice, const struct texts *shared, const char *locale)
{
	if (find_language(choice, TEXTS_LOCALE) == choice->languages) {
		complain(shared->dir, "there is no folder " TEXTS_LOCALE);
		return RESULT_INVALID;
	}
	choice->fallback = find_language(choice, locale[0] != '\0' ? locale : TEXTS_LOCALE);
	if (choice->fallback == choice->languages) {
		complain(shared->dir, "there is no folder for the locale %s", locale);
		return RESULT_INVALID;
	}
	return RESULT_OK;
}

/* Those of each language for any purpose, or those for one. */
static enum result merge_folders(struct texts_choice *choice, const struct texts *const trees[], bool is_for_purposes)
{
	enum result worst = RESULT_OK;

	for (size_t t = 0; t < TEXTS_TREES; t++)
		for (size_t i = 0; i < trees[t]->count; i++)
			if ((trees[t]->folder[i].purpose[0] != '\0') == is_for_purposes &&
			    merge_folder(choice, trees, t, i) != RESULT_OK)
				worst = RESULT_INVALID;
	return worst;
}

enum result texts_merge(struct texts_choice *choice, const struct texts *own, const struct texts *shared,
			const char *locale)
{
	const struct texts *const trees[TEXTS_TREES] = {own, shared};
	struct texts_choice made = {.folder = calloc(own->count + shared->count + 1, sizeof(struct texts_folder))};
	enum result result;

	if (made.folder == NULL)
		return RESULT_FAULT;
	result = merge_folders(&made, trees, false);
	made.languages = made.count;
	/* What a language lacks all its purposes lack: it is said once. */
	if (result == RESULT_OK)
		result = merge_folders(&made, trees, true);
	if (choose_fallback(&made, shared, locale) != RESULT_OK)
		result = RESULT_INVALID;
	if (result == RESULT_OK)
		*choice = made;
	else
		texts_choice_free(&made);
	return result;
}

void texts_choice_free(struct texts_choice *choice)
{
	free(choice->folder);
	*choice = (struct texts_choice){.folder = NULL};
}

const struct texts_files *texts_choose(const struct texts_choice *choice, const char *locale, const char *purpose)
{
	size_t found = find_language(choice, locale);
	size_t language = found < choice->languages ? found : choice->fallback;

	for (size_t i = choice->languages; i < choice->count; i++)
		if (is_folder(&choice->folder[i], choice->folder[language].locale, purpose))
			return &choice->folder[i].files;
	return &choice->folder[language].files;
}
