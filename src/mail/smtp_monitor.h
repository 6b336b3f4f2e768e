/* smtp_monitor.h: what is said before the first mail of a session, as far as libesmtp does not tell. */
#ifndef OTP_SMTP_MONITOR_H
#define OTP_SMTP_MONITOR_H

#include <stdbool.h>
#include <stddef.h>

#include "mail/smtp_offers.h"
#include "mail/smtp_reply.h"

/* {0} at the start of a session. */
struct smtp_monitor {
	bool needs_login;
	bool is_logging_in;    /* AUTH was sent */
	bool is_logged_in;     /* and answered with 235 */
	bool is_login_refused; /* or with a refusal, or there was no way to log in */
	bool has_begun;        /* the first MAIL was sent */
	const char *step;      /* what was said last before it; NULL: the greeting is awaited */
	struct smtp_offers offers;
	struct smtp_reply heard; /* the first refusal; code 0: none */
};

/* Bytes of the relay, in libesmtp's own buffer, before it parses them. false: the session must end now. */
bool smtp_monitor_received(struct smtp_monitor *monitor, char *bytes, size_t length);

/* Bytes that are about to be sent. false: they must not be, and the session must end. */
bool smtp_monitor_sends(struct smtp_monitor *monitor, const char *bytes, size_t length);

#endif
