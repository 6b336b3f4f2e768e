/* slug.c: names that people give to things: of applications, of purposes. */
#include "otp/slug.h"

bool slug_is(const char *text, size_t length)
{
	if (length == 0 || length > SLUG_MAX)
		return false;
	for (size_t i = 0; i < length; i++) {
		bool is_letter = text[i] >= 'a' && text[i] <= 'z';
		bool is_digit = text[i] >= '0' && text[i] <= '9';

		if (!is_letter && !is_digit && text[i] != '-')
			return false;
	}
	return true;
}
