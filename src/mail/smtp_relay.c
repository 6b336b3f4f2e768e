/* smtp_relay.c: the mail relays of the settings, and which of them to try next. */
#include "mail/smtp_relay.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static enum result refuse(const char *setting, const char *reason)
{
	log_event(LOG_ERROR, "setting_invalid", LOG_TEXT("setting", setting), LOG_TEXT("reason", reason));
	return RESULT_INVALID;
}

static enum result add_relay(struct smtp_relays *relays, const struct config *config, const struct config_relay *found)
{
	struct smtp_relay *relay = &relays->relay[relays->count];

	if (relays->count == SMTP_RELAYS_MAX)
		return refuse("SMTP_RELAYS", "there are more than 16");
	if (strchr(found->host, ':') != NULL)
		return refuse("SMTP_RELAYS", "libesmtp takes no IPv6 address; use a host name");
	if (config->smtp_tls == SMTP_TLS_OFF && !found->is_loopback)
		return refuse("SMTP_TLS", "off is for loopback relays only; off-trusted is for any");
	if (config->smtp_tls != SMTP_TLS_REQUIRED && config->smtp_user[0] != '\0' && !found->is_loopback)
		return refuse("SMTP_USER", "a password is not sent without TLS, unless to a loopback relay");
	(void)snprintf(relay->name, sizeof relay->name, "%s:%s", found->host, found->port);
	relay->port = (int)strtol(found->port, NULL, 10);
	if (config->smtp_tls == SMTP_TLS_REQUIRED) {
		relay->tls = smtp_tls_new(found->host, config->smtp_ca_file);
		if (relay->tls == NULL)
			return refuse("SMTP_CA_FILE", "the authorities' certificates cannot be read");
	}
	relays->count++;
	return RESULT_OK;
}

enum result smtp_relays_read(struct smtp_relays *relays, const struct config *config)
{
	const char *list = config->smtp_relays;
	struct config_relay found;

	for (;;) {
		if (config_next_relay(&list, &found) != RESULT_OK)
			return refuse("SMTP_RELAYS", "it must be \"host:port, host:port\"");
		if (found.host[0] == '\0')
			return relays->count > 0 ? RESULT_OK : refuse("SMTP_RELAYS", "it is empty");
		if (add_relay(relays, config, &found) != RESULT_OK)
			return RESULT_INVALID;
	}
}

void smtp_relays_free(struct smtp_relays *relays)
{
	for (size_t i = 0; i < relays->count; i++)
		smtp_tls_free(relays->relay[i].tls);
	relays->count = 0;
}

struct smtp_relay *smtp_relays_choose(struct smtp_relays *relays, const bool tried[static SMTP_RELAYS_MAX],
				      uint64_t now_ms)
{
	struct smtp_relay *cooling = NULL;

	for (size_t i = 0; i < relays->count; i++) {
		struct smtp_relay *relay = &relays->relay[i];

		if (tried[i])
			continue;
		if (now_ms >= relay->retry_at_ms)
			return relay;
		if (cooling == NULL)
			cooling = relay;
	}
	return cooling;
}
