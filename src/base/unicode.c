/* unicode.c: what a character is, by Unicode's own tables. */
#include "base/unicode.h"

#include <stdlib.h>
#include <unicase.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>

#define CHARACTERS_MAX 512U

size_t unicode_next(const char *text, size_t length, uint32_t *character)
{
	ucs4_t found = 0;
	int step = length == 0 ? 0 : u8_mbtoucr(&found, (const uint8_t *)text, length);

	*character = found;
	return step > 0 ? (size_t)step : 0;
}

size_t unicode_last(const char *text, size_t length, uint32_t *character)
{
	ucs4_t found = 0;
	const uint8_t *start = (const uint8_t *)text;
	const uint8_t *before = length == 0 ? NULL : u8_prev(&found, start + length, start);

	*character = found;
	return before != NULL ? (size_t)(start + length - before) : 0;
}

bool unicode_is_blank(uint32_t character)
{
	return uc_is_general_category_withtable(character,
						UC_CATEGORY_MASK_Z | UC_CATEGORY_MASK_Cc | UC_CATEGORY_MASK_Cf);
}

bool unicode_is_dash(uint32_t character)
{
	return uc_is_general_category_withtable(character, UC_CATEGORY_MASK_Pd) || uc_is_property_dash(character);
}

int unicode_digit(uint32_t character)
{
	return uc_decimal_value(character);
}

/* Has normal form C another character in place of this one alone? */
static bool is_replaced(ucs4_t character)
{
	ucs4_t parts[UC_DECOMPOSITION_MAX_LENGTH];

	return uc_canonical_decomposition(character, parts) == 1;
}

static enum result compose(char *out, size_t size, const uint32_t *characters, size_t count)
{
	uint32_t normal[CHARACTERS_MAX];
	size_t normal_count = CHARACTERS_MAX, length = size - 1;
	uint32_t *composed = u32_normalize(UNINORM_NFC, characters, count, normal, &normal_count);
	uint8_t *written = composed == NULL ? NULL : u32_to_u8(composed, normal_count, (uint8_t *)out, &length);
	bool is_fitting = written != NULL && written == (uint8_t *)out;

	/* What does not fit the given buffer comes in one of the library's own. */
	if (composed != normal)
		free(composed);
	if (is_fitting)
		out[length] = '\0';
	else
		free(written);
	return is_fitting ? RESULT_OK : RESULT_LIMITED;
}

enum result unicode_lower(char *out, size_t size, const char *text, size_t length)
{
	uint32_t lower[CHARACTERS_MAX] = {0};
	size_t count = 0;

	while (length > 0) {
		uint32_t character = 0;
		size_t step = unicode_next(text, length, &character);

		if (step == 0 || is_replaced(character))
			return RESULT_INVALID;
		if (count == CHARACTERS_MAX)
			return RESULT_LIMITED;
		lower[count++] = uc_tolower(character);
		text += step;
		length -= step;
	}
	return compose(out, size, lower, count);
}
