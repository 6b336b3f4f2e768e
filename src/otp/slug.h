/* slug.h: names that people give to things: of applications, of purposes. */
#ifndef OTP_SLUG_H
#define OTP_SLUG_H

#include <stdbool.h>
#include <stddef.h>

#define SLUG_MAX 32U

/* Is untrusted text 1 to SLUG_MAX characters of a-z, 0-9 and "-"? */
bool slug_is(const char *text, size_t length);

#endif
