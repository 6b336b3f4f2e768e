/* sender.h: who a mail is from: "Name <address>" as people write it. */
#ifndef OTP_SENDER_H
#define OTP_SENDER_H

#include <stddef.h>

#include "base/result.h"
#include "otp/address.h"

#define SENDER_NAME_MAX 200U /* bytes */

struct sender {
	char name[SENDER_NAME_MAX + 1]; /* as people read it; "": none */
	char address[ADDRESS_MAX + 1];  /* for MAIL FROM: in ASCII */
};

/* Parses "a@b", "Name <a@b>" or "\"Name\" <a@b>", UTF-8 without control characters. Unless RESULT_OK, *reason is a
   static text for a person. */
OTP_MUST_CHECK enum result sender_parse(struct sender *sender, const char *text, const char **reason);

#endif
