/* deliver.h: a delivery process: takes queued mails, sends them, records what became of them. */
#ifndef OTP_DELIVER_H
#define OTP_DELIVER_H

#include "mail/composers.h"
#include "mail/smtp_send.h"
#include "otp/keys.h"
#include "otp/settings.h"

/* What a delivery process works with; made by the parent before it forks. */
struct deliver {
	const struct settings *settings;
	const struct key_ring *keys; /* that codes are opened with */
	struct composers *composers;
	struct smtp_send *smtp;
};

/* Works until SIGTERM or SIGINT: finishes the mail at hand, settles, gives back what it has not begun. Returns the exit
   status; DELIVER_RENEW after SIGHUP, and after some thousand mails, since libesmtp leaks a little on broken transfers:
   a new process is to take its place. */
#define DELIVER_RENEW 10
int deliver_run(const struct deliver *deliver);

/* Seconds until the next attempt after attempts of them: 2, 4, 8 ... 60, a quarter more or less at random. */
int deliver_backoff_seconds(int attempts, unsigned (*uniform)(unsigned bound));

#endif
