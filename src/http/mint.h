/* mint.h: makes tokens and codes: what leaves it is unreadable, but for the token that the client gets. */
#ifndef OTP_MINT_H
#define OTP_MINT_H

#include <stdint.h>

#include "base/result.h"
#include "http/ask.h"
#include "otp/keys.h"

struct mint {
	const struct keys *keys;
	struct sealer sealer;
};

void mint_init(struct mint *mint, const struct keys *keys);
void mint_wipe(struct mint *mint);

/* A fresh code of so many digits for the token, or the fixed one of a test address. Fills mac and, unless the code is
   fixed, sealed, for the ask's id or, if it is a resend, for its mail's id. RESULT_FAULT: the worker's key is none. */
OTP_MUST_CHECK enum result mint_code(struct mint *mint, struct ask *ask, const unsigned char token[static TOKEN_BYTES],
				     const char *fixed, uint64_t now_ms);

/* A time-ordered id for a mail. */
void mint_mail_id(unsigned char id[static TOKEN_ID_BYTES], uint64_t clock_ms);

#endif
