/* seal.c: the code on its way to the worker, readable by the worker's key alone. */
#include "otp/seal.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#define RENEW_MS 60000U
#define PADDED_BYTES 16U /* so that the length of a code does not show */

_Static_assert(SEAL_BYTES == crypto_box_PUBLICKEYBYTES + crypto_box_MACBYTES + PADDED_BYTES, "layout of a sealed code");
_Static_assert(CODE_MAX < PADDED_BYTES, "a code fits its padding");

void sealer_init(struct sealer *sealer, const unsigned char recipient[static 32])
{
	memset(sealer, 0, sizeof(*sealer));
	memcpy(sealer->recipient, recipient, sizeof(sealer->recipient));
}

void sealer_wipe(struct sealer *sealer)
{
	sodium_memzero(sealer, sizeof(*sealer));
}

/* The private half lives no longer than this function. */
static enum result renew(struct sealer *sealer, uint64_t now_ms)
{
	unsigned char public_key[crypto_box_PUBLICKEYBYTES];
	unsigned char private_key[crypto_box_SECRETKEYBYTES];
	unsigned char shared[crypto_box_BEFORENMBYTES];
	enum result result = RESULT_FAULT;

	if (crypto_box_keypair(public_key, private_key) == 0 &&
	    crypto_box_beforenm(shared, sealer->recipient, private_key) == 0) {
		memcpy(sealer->ephemeral_public, public_key, sizeof(public_key));
		memcpy(sealer->shared, shared, sizeof(shared));
		sealer->renew_at_ms = now_ms + RENEW_MS;
		result = RESULT_OK;
	}
	sodium_memzero(private_key, sizeof(private_key));
	sodium_memzero(shared, sizeof(shared));
	return result;
}

/* The row's id, then zeros. Ids never repeat, so no nonce does under one key. */
static void make_nonce(unsigned char nonce[static crypto_box_NONCEBYTES], const unsigned char id[static TOKEN_ID_BYTES])
{
	memset(nonce, 0, crypto_box_NONCEBYTES);
	memcpy(nonce, id, TOKEN_ID_BYTES);
}

enum result seal_code(struct sealer *sealer, unsigned char sealed[static SEAL_BYTES],
		      const unsigned char id[static TOKEN_ID_BYTES], const char *code, uint64_t now_ms)
{
	unsigned char padded[PADDED_BYTES] = {0};
	unsigned char nonce[crypto_box_NONCEBYTES];
	unsigned char box[crypto_box_MACBYTES + PADDED_BYTES];
	size_t length = strlen(code);
	int failed;

	if (length > CODE_MAX)
		return RESULT_FAULT;
	if (now_ms >= sealer->renew_at_ms && renew(sealer, now_ms) != RESULT_OK)
		return RESULT_FAULT;
	make_nonce(nonce, id);
	for (size_t i = 0; i < length; i++)
		padded[i] = (unsigned char)code[i];
	failed = crypto_box_easy_afternm(box, padded, sizeof(padded), nonce, sealer->shared);
	sodium_memzero(padded, sizeof(padded));
	if (failed != 0)
		return RESULT_FAULT;
	memcpy(sealed, sealer->ephemeral_public, crypto_box_PUBLICKEYBYTES);
	memcpy(sealed + crypto_box_PUBLICKEYBYTES, box, sizeof(box));
	return RESULT_OK;
}

/* CODE_MIN to CODE_MAX digits, then zero bytes. */
static bool is_padded_code(const unsigned char padded[static PADDED_BYTES])
{
	size_t length = 0;

	while (length < PADDED_BYTES && padded[length] >= '0' && padded[length] <= '9')
		length++;
	return length >= CODE_MIN && length <= CODE_MAX && sodium_is_zero(padded + length, PADDED_BYTES - length);
}

void seal_opener_init(struct seal_opener *opener, const unsigned char private_key[static 32])
{
	memset(opener, 0, sizeof(*opener));
	memcpy(opener->private_key, private_key, sizeof(opener->private_key));
}

void seal_opener_wipe(struct seal_opener *opener)
{
	sodium_memzero(opener, sizeof(*opener));
}

/* The key shared with this sender (untrusted); NULL: it is no curve point. */
static const unsigned char *find_shared(struct seal_opener *opener, const unsigned char *sender)
{
	size_t slot = opener->next;

	for (size_t i = 0; i < SEAL_SENDERS; i++)
		if (memcmp(opener->known[i].sender, sender, crypto_box_PUBLICKEYBYTES) == 0 &&
		    !sodium_is_zero(sender, crypto_box_PUBLICKEYBYTES))
			return opener->known[i].shared;
	memset(opener->known[slot].sender, 0, sizeof(opener->known[slot].sender));
	if (crypto_box_beforenm(opener->known[slot].shared, sender, opener->private_key) != 0)
		return NULL;
	memcpy(opener->known[slot].sender, sender, crypto_box_PUBLICKEYBYTES);
	opener->next = (slot + 1) % SEAL_SENDERS;
	return opener->known[slot].shared;
}

enum result seal_opener_open(struct seal_opener *opener, char code[static CODE_MAX + 1], const unsigned char *sealed,
			     size_t length, const unsigned char id[static TOKEN_ID_BYTES])
{
	unsigned char padded[PADDED_BYTES];
	unsigned char nonce[crypto_box_NONCEBYTES];
	enum result result = RESULT_INVALID;
	const unsigned char *shared;

	if (sealed == NULL || length != SEAL_BYTES)
		return RESULT_INVALID;
	shared = find_shared(opener, sealed);
	make_nonce(nonce, id);
	if (shared != NULL &&
	    crypto_box_open_easy_afternm(padded, sealed + crypto_box_PUBLICKEYBYTES, length - crypto_box_PUBLICKEYBYTES,
					 nonce, shared) == 0 &&
	    is_padded_code(padded)) {
		memcpy(code, padded, CODE_MAX + 1);
		result = RESULT_OK;
	}
	sodium_memzero(padded, sizeof(padded));
	return result;
}

enum result seal_open(char code[static CODE_MAX + 1], const unsigned char *sealed, size_t length,
		      const unsigned char id[static TOKEN_ID_BYTES], const unsigned char private_key[static 32])
{
	struct seal_opener opener;
	enum result result;

	seal_opener_init(&opener, private_key);
	result = seal_opener_open(&opener, code, sealed, length, id);
	seal_opener_wipe(&opener);
	return result;
}
