/* utf8.h: tells well-formed UTF-8 from the rest. */
#ifndef OTP_UTF8_H
#define OTP_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* The length, 1 to 4 bytes, of the character that untrusted text begins with; 0 if it is no well-formed UTF-8 (RFC
   3629: no overlong form, no surrogate, nothing above U+10FFFF) or reaches beyond size bytes. Never reads behind a NUL.
 */
size_t utf8_length(const char *text, size_t size);

/* Is all of size bytes well-formed? */
bool utf8_is_valid(const char *text, size_t size);

#endif
