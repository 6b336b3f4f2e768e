/* smtp_dial.h: a connection to a relay, made and proven before libesmtp, which speaks in the clear, gets an end of it.
 */
#ifndef OTP_SMTP_DIAL_H
#define OTP_SMTP_DIAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"
#include "mail/smtp_relay.h"
#include "mail/smtp_reply.h"

struct smtp_dial {
	int socket;    /* to the relay; -1: none */
	int library;   /* the end for the library: a copy of that, or one of a pair whose bytes a thread carries */
	int local;     /* the thread's end; -1: none */
	int listener;  /* what the library is to connect to; -1: it has */
	char name[24]; /* that, as "127.0.0.1:port" */
	uint16_t port; /* in network order */
	struct smtp_tls_link *link;
	pthread_t carrier;
	bool is_carried;
	const char *step;                 /* what it failed at; NULL: nothing */
	char proof[SMTP_TLS_PROOF_BYTES]; /* what TLS has proven, for a person */
	bool is_our_fault;                /* why it failed: TLS or a refusal for good, not a passing state */
	struct smtp_reply reason;         /* why it failed */
};

/* Resolves, connects and, where the relay has TLS, handshakes, after STARTTLS unless it begins with TLS; each step
   within patience_ms, all of it until deadline_ms (CLOCK_BOOTTIME). helo: what EHLO says. RESULT_UNAVAILABLE: it
   failed, with the reason. Close it in any case. */
OTP_MUST_CHECK enum result smtp_dial_open(struct smtp_dial *dial, struct smtp_relay *relay, const char *helo,
					  uint64_t patience_ms, uint64_t deadline_ms);

/* When the library has connected to name: puts its end of the connection in the place of that. RESULT_FAULT: it cannot
   be, and what the library has is a connection to nobody. */
OTP_MUST_CHECK enum result smtp_dial_give(struct smtp_dial *dial);

/* When the library has closed its end. */
void smtp_dial_close(struct smtp_dial *dial);

#endif
