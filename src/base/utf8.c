/* utf8.c: which bytes are well-formed UTF-8, and which of that are text. */
#include "base/utf8.h"

#include <string.h>
#include <unistr.h>

size_t utf8_length(const char *text, size_t size)
{
	ucs4_t character;
	int length = size == 0 ? 0 : u8_mbtoucr(&character, (const uint8_t *)text, size);

	return length > 0 ? (size_t)length : 0;
}

bool utf8_is_valid(const char *text, size_t size)
{
	return u8_check((const uint8_t *)text, size) == NULL;
}

/* Is the character of length bytes a control character? */
static bool is_control(const char *text, size_t length)
{
	unsigned char first = (unsigned char)text[0];

	return first < 0x20 || first == 0x7F || (length == 2 && first == 0xC2 && (unsigned char)text[1] < 0xA0);
}

bool utf8_is_text(const char *text, size_t size, const char *allowed, size_t *bad)
{
	for (size_t at = 0; at < size;) {
		size_t length = utf8_length(text + at, size - at);
		bool is_allowed = text[at] != '\0' && strchr(allowed, text[at]) != NULL;

		if (length == 0 || (is_control(text + at, length) && !is_allowed)) {
			if (bad != NULL)
				*bad = at;
			return false;
		}
		at += length;
	}
	return true;
}
