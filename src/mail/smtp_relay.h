/* smtp_relay.h: the mail relays of the settings, what is known of each, and which of them to try next. */
#ifndef OTP_SMTP_RELAY_H
#define OTP_SMTP_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "mail/smtp_tls.h"
#include "otp/address.h"
#include "otp/settings.h"

#define SMTP_PAUSE_FIRST_MS 1000U
#define SMTP_PAUSE_LAST_MS 300000U
#define SMTP_PAUSE_ALONE_MS 10000U /* the longest when there is no other relay to turn to */
#define SMTP_REFUSES_EVERYBODY 5U  /* different recipients in a row */

/* How a session ended that took no mail. */
enum smtp_trouble {
	SMTP_TROUBLE_NONE,    /* it took some, or knew that there is no such recipient */
	SMTP_TROUBLE_REFUSES, /* it answers, but refuses mails; perhaps not all */
	SMTP_TROUBLE_AWAY,    /* it cannot be used now */
	SMTP_TROUBLE_LOGIN    /* it refuses our login: asking often locks accounts */
};

struct smtp_relay {
	char name[280]; /* as in the settings, for the log */
	const char *host;
	const char *port;
	bool is_implicit;        /* TLS from the first byte */
	unsigned failures;       /* sessions in which it could not be used */
	struct smtp_tls *tls;    /* NULL: plaintext */
	uint64_t pause_ms;       /* 0: no trouble since it last took a mail */
	uint64_t retry_at_ms;    /* until then it is tried after the others */
	uint64_t not_before_ms;  /* and until then not at all */
	unsigned refused;        /* recipients in a row, since it accepted one */
	uint64_t quiet_until_ms; /* that it refuses everybody */
	char last_refused[ADDRESS_MAX + 1];
	bool login_warned;
};

struct smtp_relays {
	size_t count;
	struct smtp_relay relay[SETTINGS_RELAYS_MAX];
};

/* Prepares the relays of the settings, reading SMTP_CA_FILE. RESULT_INVALID: refused, with a complaint. Close them in
   any case. */
OTP_MUST_CHECK enum result smtp_relays_open(struct smtp_relays *relays, const struct settings *settings);
void smtp_relays_close(struct smtp_relays *relays);

/* The first in order of preference of the relays that are wanted, a bit each: those in trouble after the others, and
   not before they may be tried again. NULL: none. */
struct smtp_relay *smtp_relays_choose(struct smtp_relays *relays, uint32_t wanted, uint64_t now_ms);

/* The same among those that were not in trouble when they were last tried. */
struct smtp_relay *smtp_relays_choose_well(struct smtp_relays *relays, uint32_t wanted);
size_t smtp_relays_count_well(const struct smtp_relays *relays, uint32_t wanted);

/* Until a relay may be tried; 0: now. */
uint64_t smtp_relays_wait_ms(const struct smtp_relays *relays, uint64_t now_ms);

/* A session is over. Trouble of a kind makes the relay's pause longer, no trouble ends it. */
void smtp_relay_note_session(struct smtp_relay *relay, enum smtp_trouble trouble, uint64_t now_ms);

/* A recipient was accepted, or refused for whatever reason. */
void smtp_relay_note_accepted(struct smtp_relay *relay);
void smtp_relay_note_refused(struct smtp_relay *relay, const char *recipient);

/* Has it refused several recipients, and accepted none since? Then its refusals hardly mean them. */
bool smtp_relay_refuses_everybody(const struct smtp_relay *relay);

#endif
