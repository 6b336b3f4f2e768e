/* base64url.h: bytes as text for URLs and headers (RFC 4648 5, without padding), one spelling each. */
#ifndef OTP_BASE64URL_H
#define OTP_BASE64URL_H

#include <stddef.h>

#include "base/result.h"

/* Characters that so many bytes take. */
#define BASE64URL_TEXT(bytes) ((8U * (bytes) + 5U) / 6U)

/* text: BASE64URL_TEXT(count) + 1 bytes. */
void base64url_write(char *text, const unsigned char *bytes, size_t count);

/* Parses untrusted text: BASE64URL_TEXT(count) characters, spelt as base64url_write spells them, or RESULT_INVALID.
   count is BASE64URL_BYTES_MAX at most. */
#define BASE64URL_BYTES_MAX 64U
OTP_MUST_CHECK enum result base64url_read(unsigned char *bytes, size_t count, const char *text, size_t length);

#endif
