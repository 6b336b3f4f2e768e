/* smtp_relay.c: the mail relays of the settings, what is known of each, and which of them to try next. */
#include "mail/smtp_relay.h"

#include <stdio.h>
#include <string.h>

#include "base/complaint.h"

static enum result open_relay(struct smtp_relay *relay, const struct settings_relay *setting,
			      const struct settings *settings)
{
	const struct endpoint *endpoint = &setting->endpoint;

	(void)snprintf(relay->name, sizeof(relay->name), "%s%s%s%s:%s", setting->is_implicit ? "smtps://" : "",
		       endpoint->is_ipv6 ? "[" : "", endpoint->host, endpoint->is_ipv6 ? "]" : "", endpoint->port);
	relay->host = endpoint->host;
	relay->port = endpoint->port;
	relay->is_implicit = setting->is_implicit;
	if (settings->smtp_tls != SMTP_TLS_REQUIRED && !setting->is_implicit)
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

/* --- The order --- */

struct smtp_relay *smtp_relays_choose(struct smtp_relays *relays, uint32_t wanted, uint64_t now_ms)
{
	struct smtp_relay *in_trouble = NULL;

	for (size_t i = 0; i < relays->count; i++) {
		struct smtp_relay *relay = &relays->relay[i];

		if ((wanted & 1U << i) == 0 || now_ms < relay->not_before_ms)
			continue;
		if (now_ms >= relay->retry_at_ms)
			return relay;
		if (in_trouble == NULL)
			in_trouble = relay;
	}
	return in_trouble;
}

struct smtp_relay *smtp_relays_choose_well(struct smtp_relays *relays, uint32_t wanted)
{
	for (size_t i = 0; i < relays->count; i++)
		if ((wanted & 1U << i) != 0 && relays->relay[i].pause_ms == 0)
			return &relays->relay[i];
	return NULL;
}

size_t smtp_relays_count_well(const struct smtp_relays *relays, uint32_t wanted)
{
	size_t well = 0;

	for (size_t i = 0; i < relays->count; i++)
		well += (wanted & 1U << i) != 0 && relays->relay[i].pause_ms == 0;
	return well;
}

uint64_t smtp_relays_wait_ms(const struct smtp_relays *relays, uint64_t now_ms)
{
	uint64_t wait_ms = UINT64_MAX;

	for (size_t i = 0; i < relays->count; i++) {
		uint64_t at_ms = relays->relay[i].not_before_ms;
		uint64_t its_ms = at_ms > now_ms ? at_ms - now_ms : 0;

		if (its_ms < wait_ms)
			wait_ms = its_ms;
	}
	return wait_ms;
}

/* --- What is known of one --- */

static uint64_t at_most(uint64_t value, uint64_t limit)
{
	return value < limit ? value : limit;
}

void smtp_relay_note_session(struct smtp_relay *relay, enum smtp_trouble trouble, uint64_t now_ms)
{
	uint64_t pause_ms =
	    relay->pause_ms == 0 ? SMTP_PAUSE_FIRST_MS : at_most(relay->pause_ms * 2, SMTP_PAUSE_LAST_MS);

	relay->pause_ms = trouble == SMTP_TROUBLE_NONE ? 0 : pause_ms;
	relay->retry_at_ms = trouble == SMTP_TROUBLE_NONE ? 0 : now_ms + pause_ms;
	switch (trouble) {
	case SMTP_TROUBLE_NONE:
	case SMTP_TROUBLE_REFUSES:
		relay->not_before_ms = 0;
		break;
	case SMTP_TROUBLE_AWAY:
		relay->failures++;
		relay->not_before_ms = now_ms + at_most(pause_ms, SMTP_PAUSE_ALONE_MS);
		break;
	case SMTP_TROUBLE_LOGIN:
		relay->not_before_ms = now_ms + pause_ms;
		break;
	}
}

void smtp_relay_note_accepted(struct smtp_relay *relay)
{
	relay->refused = 0;
	relay->last_refused[0] = '\0';
}

void smtp_relay_note_refused(struct smtp_relay *relay, const char *recipient)
{
	/* One that is tried again says nothing new. */
	if (strcmp(relay->last_refused, recipient) == 0)
		return;
	(void)snprintf(relay->last_refused, sizeof(relay->last_refused), "%s", recipient);
	relay->refused++;
}

bool smtp_relay_refuses_everybody(const struct smtp_relay *relay)
{
	return relay->refused >= SMTP_REFUSES_EVERYBODY;
}
