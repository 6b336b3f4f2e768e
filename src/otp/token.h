/* token.h: the session token that an application holds, and the row id derived from it. */
#ifndef OTP_TOKEN_H
#define OTP_TOKEN_H

#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

#define TOKEN_BYTES 32U
#define TOKEN_TEXT 43U /* base64url without padding */
#define TOKEN_ID_BYTES 16U
#define TOKEN_ID_TEXT 36U

/* 6 bytes of creation time (ms since 1970, big-endian), then 26 from random. */
void token_make(unsigned char token[static TOKEN_BYTES], uint64_t now_ms, void (*random)(void *bytes, size_t count));

void token_write(const unsigned char token[static TOKEN_BYTES], char text[static TOKEN_TEXT + 1]);

/* Parses untrusted text: exactly TOKEN_TEXT characters of base64url in canonical form, or RESULT_INVALID. */
OTP_MUST_CHECK enum result token_read(unsigned char token[static TOKEN_BYTES], const char *text, size_t length);

/* id = the 6 bytes of time || the first 10 bytes of BLAKE2b-256(token): time-ordered, safe to store and to log (A2). */
void token_id(const unsigned char token[static TOKEN_BYTES], unsigned char id[static TOKEN_ID_BYTES]);

/* The usual 8-4-4-4-12 form of a uuid. */
void token_id_write(const unsigned char id[static TOKEN_ID_BYTES], char text[static TOKEN_ID_TEXT + 1]);

#endif
