/* relay.h: the mail relays of the settings, and which of them to try next. */
#ifndef OTP_RELAY_H
#define OTP_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "result.h"
#include "tls.h"

#define RELAYS_MAX 16U
#define RELAY_COOL_DOWN_MS 30000U

struct relay {
	char name[264]; /* "host:port", for libesmtp and the log */
	int port;
	struct tls *tls;      /* NULL: plaintext */
	uint64_t retry_at_ms; /* could not be used lately: tried after the others until then */
	bool login_warned;
};

struct relays {
	size_t count;
	struct relay relay[RELAYS_MAX];
};

/* Reads SMTP_RELAYS, SMTP_TLS and SMTP_CA_FILE. RESULT_INVALID: refused and logged, naming the setting. Free it in any
   case. */
OTP_MUST_CHECK enum result relays_read(struct relays *relays, const struct config *config);
void relays_free(struct relays *relays);

/* The first relay in order of preference that was not tried yet, those that failed lately after the others; NULL: all
   were tried. */
struct relay *relays_choose(struct relays *relays, const bool tried[static RELAYS_MAX], uint64_t now_ms);

#endif
