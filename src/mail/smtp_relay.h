/* smtp_relay.h: the mail relays of the settings, and which of them to try next. */
#ifndef OTP_SMTP_RELAY_H
#define OTP_SMTP_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "mail/smtp_tls.h"
#include "otp/settings.h"

#define SMTP_RELAY_COOL_DOWN_MS 30000U

struct smtp_relay {
	char name[264]; /* "host:port", for libesmtp and the log */
	int port;
	struct smtp_tls *tls; /* NULL: plaintext */
	uint64_t retry_at_ms; /* could not be used lately: tried after the others until then */
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

/* The first relay in order of preference that was not tried yet, those that failed lately after the others; NULL: all
   were tried. */
struct smtp_relay *smtp_relays_choose(struct smtp_relays *relays, const bool was_tried[static SETTINGS_RELAYS_MAX],
				      uint64_t now_ms);

#endif
