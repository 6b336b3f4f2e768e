/* api_key.h: the keys by which an application says that it is the one; only their hashes are stored (A20). */
#ifndef OTP_API_KEY_H
#define OTP_API_KEY_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"

#define API_KEY_TEXT 47U /* "otp_" and 32 bytes as base64url */
#define API_KEY_HASH_BYTES 32U
#define API_KEY_HASH_TEXT 64U

/* The caller wipes it. */
void api_key_make(char text[static API_KEY_TEXT + 1], void (*random)(void *bytes, size_t count));

/* hash = BLAKE2b-256 of the key's text. A key is 256 random bits, so nothing slower is needed. RESULT_INVALID: the
   untrusted text is not of a key's form. */
OTP_MUST_CHECK enum result api_key_hash(unsigned char hash[static API_KEY_HASH_BYTES], const char *text, size_t length);

/* In a time that says nothing of where they differ. */
bool api_key_is_same(const unsigned char a[static API_KEY_HASH_BYTES],
		     const unsigned char b[static API_KEY_HASH_BYTES]);

/* A hash as the applications' file holds it: 64 digits, a to f in small letters. */
void api_key_hash_write(const unsigned char hash[static API_KEY_HASH_BYTES], char text[static API_KEY_HASH_TEXT + 1]);
OTP_MUST_CHECK enum result api_key_hash_read(unsigned char hash[static API_KEY_HASH_BYTES], const char *text,
					     size_t length);

#endif
