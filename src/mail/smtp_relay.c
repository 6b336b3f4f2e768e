/* smtp_relay.c: the mail relays of the settings, and which of them to try next. */
#include "mail/smtp_relay.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/complaint.h"

static enum result open_relay(struct smtp_relay *relay, const struct endpoint *endpoint,
			      const struct settings *settings)
{
	if (endpoint->is_ipv6) {
		complain("SMTP_RELAYS", "[%s]: libesmtp takes no IPv6 address: use a host name", endpoint->host);
		return RESULT_INVALID;
	}
	(void)snprintf(relay->name, sizeof(relay->name), "%s:%s", endpoint->host, endpoint->port);
	relay->port = (int)strtol(endpoint->port, NULL, 10);
	if (settings->smtp_tls != SMTP_TLS_REQUIRED)
		return RESULT_OK;
	relay->tls = smtp_tls_new(endpoint->host, settings->smtp_ca_file);
	if (relay->tls != NULL)
		return RESULT_OK;
	complain("SMTP_CA_FILE", "the authorities' certificates cannot be read from %s",
		 settings->smtp_ca_file[0] != '\0' ? settings->smtp_ca_file : "the system's folder");
	return RESULT_INVALID;
}

enum result smtp_relays_open(struct smtp_relays *relays, const struct settings *settings)
{
	for (size_t i = 0; i < settings->smtp_relays.count; i++) {
		if (open_relay(&relays->relay[i], &settings->smtp_relays.relay[i], settings) != RESULT_OK)
			return RESULT_INVALID;
		relays->count++;
	}
	return RESULT_OK;
}

void smtp_relays_close(struct smtp_relays *relays)
{
	for (size_t i = 0; i < relays->count; i++)
		smtp_tls_free(relays->relay[i].tls);
	relays->count = 0;
}

struct smtp_relay *smtp_relays_choose(struct smtp_relays *relays, const bool was_tried[static SETTINGS_RELAYS_MAX],
				      uint64_t now_ms)
{
	struct smtp_relay *cooling = NULL;

	for (size_t i = 0; i < relays->count; i++) {
		struct smtp_relay *relay = &relays->relay[i];

		if (was_tried[i])
			continue;
		if (now_ms >= relay->retry_at_ms)
			return relay;
		if (cooling == NULL)
			cooling = relay;
	}
	return cooling;
}
