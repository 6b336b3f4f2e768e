/* seal.h: the code on its way to the worker, readable by the worker's key alone. */
#ifndef OTP_SEAL_H
#define OTP_SEAL_H

#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "otp/code.h"

#define SEAL_BYTES 64U /* sender's ephemeral public key 32, tag 16, code padded to 16 */

/* The sender's side: an ephemeral X25519 key pair, renewed every minute, with the shared key cached. */
struct sealer {
	unsigned char recipient[32];
	unsigned char ephemeral_public[32];
	unsigned char shared[32];
	uint64_t renew_at_ms;
};

/* recipient: the worker's public key. */
void sealer_init(struct sealer *sealer, const unsigned char recipient[static 32]);
void sealer_wipe(struct sealer *sealer);

/* Seals code for the row id; the id is the nonce, so a sealed code opens only in its own row. now_ms: any monotonic
   clock. RESULT_FAULT if the recipient's key is no curve point. */
OTP_MUST_CHECK enum result seal_code(struct sealer *sealer, unsigned char sealed[static SEAL_BYTES],
				     const unsigned char id[static TOKEN_ID_BYTES], const char *code, uint64_t now_ms);

/* The worker's side. Keeps the shared keys of the last senders, each of whom lives a minute: making one costs more than
   all else about a mail. */
#define SEAL_SENDERS 4U /* generating processes that seal at the same time, before it gets slower */
struct seal_opener {
	unsigned char private_key[32];
	size_t next;
	struct {
		unsigned char sender[32]; /* zeros: none */
		unsigned char shared[32];
	} known[SEAL_SENDERS];
};

void seal_opener_init(struct seal_opener *opener, const unsigned char private_key[static 32]);
void seal_opener_wipe(struct seal_opener *opener);

/* As seal_open. */
OTP_MUST_CHECK enum result seal_opener_open(struct seal_opener *opener, char code[static CODE_MAX + 1],
					    const unsigned char *sealed, size_t length,
					    const unsigned char id[static TOKEN_ID_BYTES]);

/* Once, without keeping anything. sealed is untrusted; RESULT_INVALID if it was not sealed to this key for this id. */
OTP_MUST_CHECK enum result seal_open(char code[static CODE_MAX + 1], const unsigned char *sealed, size_t length,
				     const unsigned char id[static TOKEN_ID_BYTES],
				     const unsigned char private_key[static 32]);

#endif
