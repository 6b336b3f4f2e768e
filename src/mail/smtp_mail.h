/* smtp_mail.h: a mail on its way to a relay: what is asked of the sender, and what became of it. */
#ifndef OTP_SMTP_MAIL_H
#define OTP_SMTP_MAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "mail/smtp_reply.h"

enum smtp_outcome {
	SMTP_UNTRIED, /* the relay never heard of it */
	SMTP_SENT,    /* the relay took responsibility: 2xx for the recipient and for the message */
	SMTP_FAILED,  /* the relay refused the recipient for good */
	SMTP_RETRY    /* anything else, also when nobody can tell whether it was taken */
};

/* One mail to send: recipient is the caller's, the rest is filled in by smtp_send_mails. */
struct smtp_mail {
	const char *recipient; /* as address_is_recipient has it */
	enum smtp_outcome outcome;
	struct smtp_reply reply;
	const char *relay;   /* "host:port", "" if none was reached; lives as long as the struct smtp_send */
	int64_t finished_ms; /* since 1970: when the outcome was known */
};

/* Where the texts come from, one at a time, so that few codes are in memory. */
struct smtp_source {
	void *context;
	/* The text of the mail of that index, complete with headers and CRLF line ends; valid until the next call. */
	enum result (*compose)(void *context, size_t index, const char **text, size_t *length);
	/* Is there time for one more? Asked before each but the first of a session. */
	bool (*goes_on)(void *context);
};

#endif
