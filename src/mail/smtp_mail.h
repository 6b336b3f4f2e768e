/* smtp_mail.h: a mail on its way to a relay: what is asked of the sender, and what became of it. */
#ifndef OTP_SMTP_MAIL_H
#define OTP_SMTP_MAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "mail/smtp_reply.h"

enum smtp_outcome {
	SMTP_UNTRIED, /* no relay has said anything about it */
	SMTP_SENT,    /* a relay took responsibility: 2xx for the recipient and for the message */
	SMTP_FAILED,  /* for good: a relay refused the recipient, or it was in doubt too often */
	SMTP_RETRY    /* anything else */
};

/* One mail to send: sender, recipient and doubts are the caller's, the rest is filled in by smtp_send_mails, and doubts
   raised. */
struct smtp_mail {
	const char *sender;    /* for MAIL FROM */
	const char *recipient; /* as address_is_recipient has it */
	int doubts;            /* attempts that left in doubt whether it was taken, or can be at all */
	enum smtp_outcome outcome;
	struct smtp_reply reply; /* what decided the outcome; of several refusals the first */
	bool is_our_fault;       /* the refusal means us: somebody must mend it */
	const char *relay;       /* "host:port", "" if none was reached; lives as long as the struct smtp_send */
	int64_t finished_ms;     /* since 1970: when the outcome was known */
	uint32_t refused_by;     /* the relays that have had their chance, a bit each */
};

/* Where the texts come from, one at a time, so that few codes are in memory. */
struct smtp_source {
	void *context;
	/* The text of a mail, complete with headers and CRLF line ends; valid until the next call. */
	enum result (*compose)(void *context, const struct smtp_mail *mail, const char **text, size_t *length);
	/* Is there time for one more? Asked before each but the first. */
	bool (*goes_on)(void *context);
};

#endif
