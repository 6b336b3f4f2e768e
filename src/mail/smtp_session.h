/* smtp_session.h: one SMTP connection to one relay, through libesmtp. */
#ifndef OTP_SMTP_SESSION_H
#define OTP_SMTP_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mail/smtp_mail.h"
#include "mail/smtp_offers.h"
#include "mail/smtp_relay.h"
#include "otp/address.h"

struct letter;
struct smtp_session;

/* Who sends: the same for all sessions. */
struct smtp_identity {
	const char *user; /* "": no login */
	char password[1024];
	char address[ADDRESS_MAX + 1]; /* for MAIL FROM; its domain greets */
};

/* One connection. Its mails are numbered from 0. */
struct smtp_connection {
	/* For the caller to fill in. */
	const struct smtp_identity *identity;
	struct smtp_relay *relay;
	struct smtp_mail *mails;
	size_t count;
	const struct smtp_source *source;
	size_t first; /* the source's number of mails[0] */
	uint64_t deadline_ms;
	uint64_t last_start_ms; /* no mail is begun after this */

	/* How it went: for the caller, accepted and reason. */
	struct smtp_session *smtp;
	struct letter *letter;
	size_t added;    /* mails given to libesmtp */
	size_t answered; /* mails whose MAIL was answered; the last of them is under way */
	int lowest_fd;
	bool was_connected;
	bool accepted;      /* a MAIL was answered with 2xx: the relay can be used */
	bool is_our_fault;  /* TLS, login or configuration, not a passing state of the relay */
	bool text_ended;    /* the text of the mail under way was read to its end */
	bool awaits_tls;    /* STARTTLS was sent */
	bool is_logging_in; /* AUTH was sent */
	bool is_logged_in;  /* and answered with 235 */
	bool has_begun;     /* the first MAIL was sent */
	struct smtp_offers offers;
	struct smtp_reply reason; /* why the relay cannot be used; text "" if not known yet */
	struct smtp_reply heard;  /* the last 4xx or 5xx before the first MAIL */
};

/* Prepares for sessions; before the first. RESULT_FAULT: out of resources. */
OTP_MUST_CHECK enum result smtp_session_prepare(void);
void smtp_session_release(void);

/* Runs the session. Mails in front get an outcome, in order; the others stay SMTP_UNTRIED. RESULT_OK: the relay could
   be used, and at least one mail has an outcome. RESULT_UNAVAILABLE: it could not, the reason is kept and logged, no
   mail has an outcome. RESULT_FAULT: out of memory. */
OTP_MUST_CHECK enum result smtp_session_run(struct smtp_connection *session);

#endif
