/* token.c: the session token that an application holds, and the row id derived from it. */
#include "otp/token.h"

#include <endian.h>
#include <sodium.h>
#include <string.h>

#define TIME_BYTES 6U

void token_make(unsigned char token[static TOKEN_BYTES], uint64_t now_ms, void (*random)(void *bytes, size_t count))
{
	uint64_t big_endian = htobe64(now_ms);

	memcpy(token, (const unsigned char *)&big_endian + sizeof(big_endian) - TIME_BYTES, TIME_BYTES);
	random(token + TIME_BYTES, TOKEN_BYTES - TIME_BYTES);
}

void token_write(const unsigned char token[static TOKEN_BYTES], char text[static TOKEN_TEXT + 1])
{
	(void)sodium_bin2base64(text, TOKEN_TEXT + 1, token, TOKEN_BYTES, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

enum result token_read(unsigned char token[static TOKEN_BYTES], const char *text, size_t length)
{
	unsigned char bytes[TOKEN_BYTES];
	char again[TOKEN_TEXT + 1];
	size_t count = 0;
	enum result result = RESULT_INVALID;

	if (length != TOKEN_TEXT)
		return RESULT_INVALID;
	/* One token has one spelling: what it reads must write the same again. (sodium_base642bin of libsodium 1.0.18
	   takes bytes above 0x7F for digits.) */
	if (sodium_base642bin(bytes, sizeof(bytes), text, length, NULL, &count, NULL,
			      sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0 &&
	    count == sizeof(bytes)) {
		token_write(bytes, again);
		if (memcmp(again, text, TOKEN_TEXT) == 0) {
			memcpy(token, bytes, sizeof(bytes));
			result = RESULT_OK;
		}
	}
	sodium_memzero(bytes, sizeof(bytes));
	sodium_memzero(again, sizeof(again));
	return result;
}

void token_id(const unsigned char token[static TOKEN_BYTES], unsigned char id[static TOKEN_ID_BYTES])
{
	unsigned char hash[crypto_generichash_BYTES];

	(void)crypto_generichash(hash, sizeof(hash), token, TOKEN_BYTES, NULL, 0);
	memcpy(id, token, TIME_BYTES);
	memcpy(id + TIME_BYTES, hash, TOKEN_ID_BYTES - TIME_BYTES);
	sodium_memzero(hash, sizeof(hash));
}

void token_id_write(const unsigned char id[static TOKEN_ID_BYTES], char text[static TOKEN_ID_TEXT + 1])
{
	static const char digits[] = "0123456789abcdef";
	char *out = text;

	for (size_t i = 0; i < TOKEN_ID_BYTES; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = digits[id[i] >> 4];
		*out++ = digits[id[i] & 0x0F];
	}
	*out = '\0';
}
