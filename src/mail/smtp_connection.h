/* smtp_connection.h: a connection to a relay: what is asked of it, and how it goes. */
#ifndef OTP_SMTP_CONNECTION_H
#define OTP_SMTP_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mail/smtp_dial.h"
#include "mail/smtp_mail.h"
#include "mail/smtp_monitor.h"
#include "mail/smtp_relay.h"
#include "otp/address.h"

struct smtp_letter;
struct smtp_session;

/* Who sends: the same for all sessions. */
struct smtp_identity {
	const char *user; /* "": no login */
	char password[1024];
	const char *helo; /* for EHLO */
};

struct smtp_connection {
	/* For the caller to fill in. */
	const struct smtp_identity *identity;
	struct smtp_relay *relay;
	uint32_t relay_bit; /* in refused_by of a mail */
	struct smtp_mail *const *mails;
	size_t count;
	const struct smtp_source *source;
	uint64_t deadline_ms;
	uint64_t last_start_ms; /* no mail is begun after this */
	uint64_t patience_ms;   /* how long to wait for a reply, but for the one to a text */
	bool is_probe;          /* a person reads how it goes: nothing is logged */
	bool ends_at_mail;      /* it is over when MAIL is answered: the mail's recipient hears of nothing */
	bool has_alternative;   /* another relay could be tried with what this one refuses */

	/* How it goes. */
	struct smtp_session *smtp;
	struct smtp_dial dial;
	struct smtp_letter *letter;
	struct smtp_letter *current; /* the mail under way: its MAIL was accepted */
	size_t added;                /* mails given to libesmtp */
	size_t answered;             /* mails whose MAIL was answered */
	size_t settled;              /* mails that were taken, or whose recipient the relay knows to be none */
	const char *refused_step;    /* the command that was refused or not answered first, from MAIL on */
	bool has_refused;            /* a mail, and not by closing the connection */
	bool is_our_fault;           /* TLS, login or configuration, not a passing state of the relay */
	bool is_unmade;              /* a mail's text could not be made */
	struct smtp_monitor monitor;
	struct smtp_reply reason; /* for the caller: why the session took nothing */
};

#endif
