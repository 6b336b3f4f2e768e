/* base64url.c: bytes as text for URLs and headers (RFC 4648 5, without padding), one spelling each. */
#include "otp/base64url.h"

#include <sodium.h>
#include <string.h>

void base64url_write(char *text, const unsigned char *bytes, size_t count)
{
	(void)sodium_bin2base64(text, BASE64URL_TEXT(count) + 1, bytes, count,
				sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

enum result base64url_read(unsigned char *bytes, size_t count, const char *text, size_t length)
{
	unsigned char found[BASE64URL_BYTES_MAX];
	char again[BASE64URL_TEXT(BASE64URL_BYTES_MAX) + 1];
	size_t found_count = 0;
	enum result result = RESULT_INVALID;

	if (length != BASE64URL_TEXT(count))
		return RESULT_INVALID;
	/* What it reads must write the same again. (sodium_base642bin of libsodium 1.0.18 takes bytes above 0x7F for
	   digits.) */
	if (sodium_base642bin(found, count, text, length, NULL, &found_count, NULL,
			      sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 &&
	    found_count == count) {
		base64url_write(again, found, count);
		if (sodium_memcmp(again, text, length) == 0) {
			memcpy(bytes, found, count);
			result = RESULT_OK;
		}
	}
	sodium_memzero(found, sizeof(found));
	sodium_memzero(again, sizeof(again));
	return result;
}
