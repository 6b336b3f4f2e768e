/* message.h: the bytes of a mail: headers and both bodies, a pure function of composer and request. */
#ifndef OTP_MESSAGE_H
#define OTP_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "mail/texts.h"
#include "otp/sender.h"
#include "otp/token.h"

#define MESSAGE_BYTES 131072U /* no message is longer; message_composer_new makes sure of it */

/* What all mails of an application have in common: the texts by language, the sender, the application's name. */
struct message_composer;

struct message_settings {
	const char *place; /* of texts that are too long, for complaints */
	const char *app_name;
	const char *subject; /* where there is no subject.txt */
	const char *subject_place;
	const struct sender *from;
	const struct sender *reply_to; /* address "": none */
	const char *locale;            /* "": en */
	const struct texts *own;       /* empty: none; both live as long as the composer, nothing else of this does */
	const struct texts *shared;
};

/* Tries each text with the longest values. RESULT_INVALID: refused; each reason is a complaint. */
OTP_MUST_CHECK enum result message_composer_new(struct message_composer **composer,
						const struct message_settings *settings);
void message_composer_free(struct message_composer *composer);

/* The address for MAIL FROM. */
const char *message_composer_sender(const struct message_composer *composer);

struct message_request {
	unsigned char id[TOKEN_ID_BYTES];
	unsigned char challenge[TOKEN_ID_BYTES]; /* whose reference people see */
	const char *recipient;                   /* as address_is_recipient has it */
	const char *code;                        /* secret */
	const char *locale;                      /* untrusted or NULL */
	const char *purpose;                     /* a slug, or "": none */
	int64_t created_ms;                      /* since 1970 */
	int64_t expires_ms;
};

/* Writes the message: CRLF line ends, no line over 76 bytes in the bodies or over 998 in the headers, 7-bit only.
   Message-ID, Date and all else follow from the request alone, so that a mail that is sent again is the same to the
   byte and receivers can tell it is (P2); the Date is thus the moment of the request. RESULT_FAULT: does not fit in
   size, or the times are nonsense. The caller wipes out: it holds the code. */
OTP_MUST_CHECK enum result message_build(const struct message_composer *composer, const struct message_request *request,
					 char *out, size_t size, size_t *length);

#endif
