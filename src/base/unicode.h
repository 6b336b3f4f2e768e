/* unicode.h: what a character is, by Unicode's own tables. */
#ifndef OTP_UNICODE_H
#define OTP_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

/* Takes the first character off length bytes of untrusted text: its bytes, 1 to 4, and its code point; 0 if it is not
   well-formed UTF-8, or length is 0. */
size_t unicode_next(const char *text, size_t length, uint32_t *character);

/* Likewise the last one. */
size_t unicode_last(const char *text, size_t length, uint32_t *character);

/* Does it show nothing of its own: spaces and separators (category Z), control and format characters (Cc, Cf)? */
bool unicode_is_blank(uint32_t character);

/* Is it a dash (category Pd, or one by the property Dash, such as the minus sign)? */
bool unicode_is_dash(uint32_t character);

/* The value, 0 to 9, of a decimal digit of any script (category Nd); -1 if it is none. */
int unicode_digit(uint32_t character);

/* Writes the lower case of length bytes in normal form C, NUL-terminated. Each character becomes its own lower case,
   and marks join their letters; nothing else changes. RESULT_INVALID: not UTF-8, or a character that normal form C
   takes for another one alone (the Kelvin sign for K); RESULT_LIMITED: it does not fit. */
OTP_MUST_CHECK enum result unicode_lower(char *out, size_t size, const char *text, size_t length);

#endif
