/* utf8.c: which bytes are well-formed UTF-8, and which of that are text. */
#include "base/utf8.h"

#include <string.h>

/* The second byte of some sequences has a narrower range than 80..BF (Unicode, table 3-7). */
static bool second_is_valid(unsigned char first, unsigned char second)
{
	switch (first) {
	case 0xE0:
		return second >= 0xA0 && second <= 0xBF;
	case 0xED:
		return second >= 0x80 && second <= 0x9F;
	case 0xF0:
		return second >= 0x90 && second <= 0xBF;
	case 0xF4:
		return second >= 0x80 && second <= 0x8F;
	default:
		return second >= 0x80 && second <= 0xBF;
	}
}

size_t utf8_length(const char *text, size_t size)
{
	const unsigned char *byte = (const unsigned char *)text;
	size_t length;

	if (size == 0)
		return 0;
	if (byte[0] < 0x80)
		return 1;
	length = byte[0] >= 0xC2 && byte[0] <= 0xDF   ? 2
		 : (byte[0] & 0xF0) == 0xE0           ? 3
		 : byte[0] >= 0xF0 && byte[0] <= 0xF4 ? 4
						      : 0;
	if (length == 0 || length > size || !second_is_valid(byte[0], byte[1]))
		return 0;
	for (size_t i = 2; i < length; i++)
		if ((byte[i] & 0xC0) != 0x80)
			return 0;
	return length;
}

bool utf8_is_valid(const char *text, size_t size)
{
	for (size_t at = 0; at < size;) {
		size_t length = utf8_length(text + at, size - at);

		if (length == 0)
			return false;
		at += length;
	}
	return true;
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
