/* mail.h: delivers mails to a relay by SMTP, several over one connection. */
#ifndef OTP_MAIL_H
#define OTP_MAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "reply.h"
#include "result.h"

enum mail_outcome {
	MAIL_UNTRIED, /* the relay never heard of it */
	MAIL_SENT,    /* the relay took responsibility: 2xx for the recipient and for the message */
	MAIL_FAILED,  /* the relay refused the recipient for good */
	MAIL_RETRY    /* anything else, also when nobody can tell whether it was taken */
};

/* One mail to send: recipient is the caller's, the rest is filled in by mail_send. */
struct mail_job {
	const char *recipient; /* ASCII, from address_parse */
	enum mail_outcome outcome;
	struct reply reply;
	const char *relay;   /* "host:port", "" if none was reached; lives as long as the struct mail */
	int64_t finished_ms; /* since 1970: when the outcome was known */
};

/* Where the texts come from, one at a time, so that few codes are in memory. */
struct mail_source {
	void *context;
	/* The text of job index, complete with headers and CRLF line ends; valid until the next call. */
	enum result (*compose)(void *context, size_t index, const char **text, size_t *length);
	/* Is there time for one more? Asked before each but the first of a session. */
	bool (*goes_on)(void *context);
};

struct mail;

/* Reads the relays, the authorities and the password; nothing is connected yet. sender: the address for MAIL FROM,
   whose domain also greets. RESULT_INVALID: refused and logged, naming the setting. */
OTP_MUST_CHECK enum result mail_new(struct mail **mail, const struct config *config, const char *sender);
void mail_free(struct mail *mail);

/* Sends jobs in order to the first relay in order of preference that can be used; one that could not be is not tried
   first for half a minute. All of it ends by deadline_ms (CLOCK_BOOTTIME): a connection that is still open then is cut.
   RESULT_UNAVAILABLE: no relay can be used; every job is MAIL_RETRY with the reason. What a relay that cannot be used
   said, or what is wrong with it, is one event in the log. */
OTP_MUST_CHECK enum result mail_send(struct mail *mail, struct mail_job *jobs, size_t count,
				     const struct mail_source *source, uint64_t deadline_ms);

/* CLOCK_BOOTTIME in ms: goes on during suspend, as the database's leases do. */
uint64_t mail_clock_ms(void);

/* In ms since 1970. */
int64_t mail_wall_clock_ms(void);

#endif
