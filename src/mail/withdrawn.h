/* withdrawn.h: mails that were taken back while a delivery process has them in hand: they are not sent any more. */
#ifndef OTP_WITHDRAWN_H
#define OTP_WITHDRAWN_H

#include <stdbool.h>
#include <stddef.h>

#include "otp/token.h"

#define WITHDRAWN_MAX 256U

/* The ids of the last ones; zeroed: none. */
struct withdrawn {
	size_t count; /* of all that ever were */
	unsigned char id[WITHDRAWN_MAX][TOKEN_ID_BYTES];
};

/* text: untrusted; what is no id is ignored. */
void withdrawn_add(struct withdrawn *withdrawn, const char *text);

bool withdrawn_has(const struct withdrawn *withdrawn, const unsigned char id[static TOKEN_ID_BYTES]);

#endif
