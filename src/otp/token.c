/* token.c: the session token that an application holds, and the row id derived from it. */
#include "otp/token.h"

#include <endian.h>
#include <sodium.h>
#include <string.h>

#include "otp/base64url.h"

#define TIME_BYTES 6U

void token_make(unsigned char token[static TOKEN_BYTES], uint64_t now_ms, void (*random)(void *bytes, size_t count))
{
	uint64_t big_endian = htobe64(now_ms);

	memcpy(token, (const unsigned char *)&big_endian + sizeof(big_endian) - TIME_BYTES, TIME_BYTES);
	random(token + TIME_BYTES, TOKEN_BYTES - TIME_BYTES);
}

void token_write(const unsigned char token[static TOKEN_BYTES], char text[static TOKEN_TEXT + 1])
{
	base64url_write(text, token, TOKEN_BYTES);
}

enum result token_read(unsigned char token[static TOKEN_BYTES], const char *text, size_t length)
{
	return base64url_read(token, TOKEN_BYTES, text, length);
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
