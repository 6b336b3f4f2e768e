/* api_key.c: the keys by which an application says that it is the one; only their hashes are stored (A20). */
#include "otp/api_key.h"

#include <sodium.h>
#include <string.h>

#include "otp/base64url.h"

#define KEY_BYTES 32U

static const char prefix[] = "otp_"; /* by which scanners of sources and logs know a key */

#define PREFIX_TEXT (sizeof(prefix) - 1)

_Static_assert(API_KEY_TEXT == PREFIX_TEXT + BASE64URL_TEXT(KEY_BYTES), "the length of a key");

void api_key_make(char text[static API_KEY_TEXT + 1], void (*random)(void *bytes, size_t count))
{
	unsigned char bytes[KEY_BYTES];

	random(bytes, sizeof(bytes));
	memcpy(text, prefix, PREFIX_TEXT);
	base64url_write(text + PREFIX_TEXT, bytes, sizeof(bytes));
	sodium_memzero(bytes, sizeof(bytes));
}

enum result api_key_hash(unsigned char hash[static API_KEY_HASH_BYTES], const char *text, size_t length)
{
	unsigned char bytes[KEY_BYTES];
	enum result result;

	if (length != API_KEY_TEXT || memcmp(text, prefix, PREFIX_TEXT) != 0)
		return RESULT_INVALID;
	result = base64url_read(bytes, sizeof(bytes), text + PREFIX_TEXT, length - PREFIX_TEXT);
	sodium_memzero(bytes, sizeof(bytes));
	if (result == RESULT_OK)
		(void)crypto_generichash(hash, API_KEY_HASH_BYTES, (const unsigned char *)text, length, NULL, 0);
	return result;
}

bool api_key_is_same(const unsigned char a[static API_KEY_HASH_BYTES], const unsigned char b[static API_KEY_HASH_BYTES])
{
	return sodium_memcmp(a, b, API_KEY_HASH_BYTES) == 0;
}

void api_key_hash_write(const unsigned char hash[static API_KEY_HASH_BYTES], char text[static API_KEY_HASH_TEXT + 1])
{
	(void)sodium_bin2hex(text, API_KEY_HASH_TEXT + 1, hash, API_KEY_HASH_BYTES);
}

enum result api_key_hash_read(unsigned char hash[static API_KEY_HASH_BYTES], const char *text, size_t length)
{
	unsigned char found[API_KEY_HASH_BYTES];
	char again[API_KEY_HASH_TEXT + 1];

	if (length != API_KEY_HASH_TEXT || sodium_hex2bin(found, sizeof(found), text, length, NULL, NULL, NULL) != 0)
		return RESULT_INVALID;
	api_key_hash_write(found, again);
	if (memcmp(again, text, length) != 0)
		return RESULT_INVALID;
	memcpy(hash, found, sizeof(found));
	return RESULT_OK;
}
