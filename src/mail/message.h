/* message.h: the bytes of a mail: headers and both bodies, a pure function of composer and request. */
#ifndef OTP_MESSAGE_H
#define OTP_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "otp/sender.h"
#include "otp/token.h"

#define MESSAGE_BYTES 131072U /* no message is longer; message_composer_new makes sure of it */

/* What all mails of this worker have in common: the texts by language, the sender, the application's name. */
struct message_composer;

struct message_settings {
	const char *app_name;
	const char *subject; /* may hold {{app_name}} */
	const struct sender *from;
	const char *template_dir;
};

/* Reads the templates and tries each with the longest values. RESULT_INVALID: refused; each reason is a complaint that
   names the setting or the file and line. */
OTP_MUST_CHECK enum result message_composer_new(struct message_composer **composer,
						const struct message_settings *settings);
void message_composer_free(struct message_composer *composer);

struct message_request {
	unsigned char id[TOKEN_ID_BYTES];
	const char *recipient; /* as address_is_recipient has it */
	const char *code;      /* secret */
	const char *locale;    /* untrusted or NULL */
	int64_t created_ms;    /* since 1970 */
	int64_t expires_ms;
};

/* Writes the message: CRLF line ends, no line over 76 bytes in the bodies or over 998 in the headers, 7-bit only.
   Message-ID, Date and all else follow from the request alone, so that a mail that is sent again is the same to the
   byte and receivers can tell it is (P2); the Date is thus the moment of the request. RESULT_FAULT: does not fit in
   size, or the times are nonsense. The caller wipes out: it holds the code. */
OTP_MUST_CHECK enum result message_build(struct message_composer *composer, const struct message_request *request,
					 char *out, size_t size, size_t *length);

#endif
