/* utf8.h: which bytes are well-formed UTF-8, and which of that are text. */
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

/* Is all of size bytes text: well-formed, without control characters (C0, DEL, C1) but those in allowed ("": none)? bad
   (or NULL) gets the offset of the first offence. A control character would end a header, a log line or a path early.
 */
bool utf8_is_text(const char *text, size_t size, const char *allowed, size_t *bad);

#endif
