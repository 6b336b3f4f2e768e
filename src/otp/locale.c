/* locale.c: in which languages somebody wants a mail, and which of those at hand comes closest. */
#include "otp/locale.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"

#define WANTED_MAX 3U

/* --- Reading --- */

/* Letters, digits and single inner hyphens, as much as a tag may hold; returns its length, 0 if it is none. */
static size_t read_tag(char out[static LOCALE_TAG_BYTES], const char *text, size_t length)
{
	size_t used = 0;

	for (; used < length && text[used] != '.' && text[used] != '@'; used++) {
		char c = text[used] == '_' ? '-' : text[used];
		bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

		if (used == LOCALE_TAG_BYTES - 1 || (!is_word && (c != '-' || used == 0 || out[used - 1] == '-')))
			return 0;
		out[used] = c;
	}
	out[used] = '\0';
	return used > 0 && out[used - 1] != '-' ? used : 0;
}

enum result locale_read(char out[static LOCALE_BYTES], const char *text, size_t length)
{
	char tag[LOCALE_TAG_BYTES];

	if (read_tag(tag, text, length) == 0)
		return RESULT_INVALID;
	memcpy(out, tag, strlen(tag) + 1);
	return RESULT_OK;
}

/* A language of the header. */
struct range {
	char tag[LOCALE_TAG_BYTES];
	int weight; /* thousandths */
};

/* "en-GB;q=0.8"; weight 0 means: not this one. */
static bool read_range(struct range *range, const char *text, size_t length)
{
	const char *semicolon = memchr(text, ';', length);
	size_t tag_length = semicolon != NULL ? (size_t)(semicolon - text) : length;
	const char *q = semicolon != NULL ? strcasestr(semicolon, "q=") : NULL;
	double weight = q != NULL && q < text + length ? strtod(q + 2, NULL) : 1.0;

	while (tag_length > 0 && text[tag_length - 1] == ' ')
		tag_length--;
	range->weight = weight >= 0.0 && weight <= 1.0 ? (int)(weight * 1000.0) : 0;
	return range->weight > 0 && read_tag(range->tag, text, tag_length) > 0;
}

/* Keeps the heaviest, the earlier one first where they weigh the same. */
static void keep(struct range ranges[static WANTED_MAX], size_t *count, const struct range *range)
{
	size_t place = *count;

	while (place > 0 && ranges[place - 1].weight < range->weight)
		place--;
	if (place == WANTED_MAX)
		return;
	if (*count < WANTED_MAX)
		(*count)++;
	memmove(&ranges[place + 1], &ranges[place], (*count - 1 - place) * sizeof(ranges[0]));
	ranges[place] = *range;
}

enum result locale_read_header(char out[static LOCALE_BYTES], const char *header)
{
	struct range ranges[WANTED_MAX], range;
	size_t count = 0;
	struct text tags;

	while (*header != '\0') {
		size_t length;

		header += strspn(header, " \t,");
		length = strcspn(header, ",");
		if (read_range(&range, header, length))
			keep(ranges, &count, &range);
		header += length;
	}
	text_init(&tags, out, LOCALE_BYTES);
	for (size_t i = 0; i < count; i++)
		text_printf(&tags, "%s%s", i > 0 ? "," : "", ranges[i].tag);
	return count > 0 ? RESULT_OK : RESULT_INVALID;
}

/* --- Choosing --- */

/* The tags at hand. */
struct choice {
	size_t count;
	const char *(*tag)(const void *context, size_t i);
	const void *context;
};

static size_t find(const struct choice *choice, const char *tag, size_t length)
{
	size_t i = 0;

	while (i < choice->count && (strncasecmp(choice->tag(choice->context, i), tag, length) != 0 ||
				     choice->tag(choice->context, i)[length] != '\0'))
		i++;
	return i;
}

/* The first of the language's other variants, by name. */
static size_t find_variant(const struct choice *choice, const char *tag, size_t language)
{
	size_t found = choice->count;

	for (size_t i = 0; i < choice->count; i++) {
		const char *other = choice->tag(choice->context, i);

		if (strncasecmp(other, tag, language) == 0 && other[language] == '-' &&
		    (found == choice->count || strcasecmp(other, choice->tag(choice->context, found)) < 0))
			found = i;
	}
	return found;
}

/* Chinese is written in two ways, and its regions say which. */
static size_t find_chinese(const struct choice *choice, const char *tag)
{
	static const char *const traditional[] = {"zh-TW", "zh-HK", "zh-MO"};
	const char *script = "zh-Hans";

	if (strncasecmp(tag, "zh", 2) != 0 || (tag[2] != '\0' && tag[2] != '-'))
		return choice->count;
	for (size_t i = 0; i < sizeof(traditional) / sizeof(traditional[0]); i++)
		if (strncasecmp(tag, traditional[i], 5) == 0)
			script = "zh-Hant";
	return find(choice, script, strlen(script));
}

static size_t choose_one(const struct choice *choice, const char *tag, size_t length)
{
	size_t language = strcspn(tag, "-,");
	size_t found = choice->count;

	for (size_t left = length; left > language && found == choice->count;) {
		found = find(choice, tag, left);
		while (left > 0 && tag[--left] != '-')
			continue;
	}
	if (found == choice->count)
		found = find_chinese(choice, tag);
	if (found == choice->count)
		found = find(choice, tag, language);
	return found == choice->count ? find_variant(choice, tag, language) : found;
}

size_t locale_choose(const char *wanted, size_t count, const char *(*tag)(const void *context, size_t i),
		     const void *context)
{
	const struct choice choice = {count, tag, context};
	size_t found = count;

	while (wanted != NULL && *wanted != '\0' && found == count) {
		size_t length = strcspn(wanted, ",");

		found = choose_one(&choice, wanted, length);
		wanted += length + (wanted[length] == ',');
	}
	return found;
}
