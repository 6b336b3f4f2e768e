/* smtp_send.c: sends mails to the first relay that takes them. */
#include "mail/smtp_send.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/private_file.h"
#include "mail/smtp_relay.h"
#include "mail/smtp_session.h"

#define PATIENCE_MS 10000U
#define PATIENCE_ALONE_MS 30000U

struct smtp_send {
	struct smtp_relays relays;
	struct smtp_identity identity;
	size_t session_max; /* mails in a session */
};

/* --- Settings --- */

static enum result read_identity(struct smtp_identity *identity, const struct settings *settings)
{
	identity->user = settings->smtp_user;
	identity->helo =
	    settings->smtp_helo[0] != '\0' ? settings->smtp_helo : strrchr(settings->email_from.address, '@') + 1;
	if (identity->user[0] == '\0')
		return RESULT_OK;
	return private_file_read_line(settings->smtp_password_file, identity->password, sizeof(identity->password));
}

enum result smtp_send_new(struct smtp_send **smtp, const struct settings *settings)
{
	struct smtp_send *made = calloc(1, sizeof(*made));
	enum result result = RESULT_FAULT;

	if (made != NULL && smtp_session_prepare() == RESULT_OK)
		result = smtp_relays_open(&made->relays, settings);
	if (result == RESULT_OK)
		made->session_max = (size_t)settings->messages_per_session;
	if (result == RESULT_OK)
		result = read_identity(&made->identity, settings);
	if (result == RESULT_OK)
		*smtp = made;
	else
		smtp_send_free(made);
	return result;
}

void smtp_send_free(struct smtp_send *smtp)
{
	if (smtp == NULL)
		return;
	smtp_relays_close(&smtp->relays);
	explicit_bzero(smtp, sizeof(*smtp));
	free(smtp);
	smtp_session_release();
}

struct smtp_relays *smtp_send_relays(struct smtp_send *smtp)
{
	return &smtp->relays;
}

const struct smtp_identity *smtp_send_identity(const struct smtp_send *smtp)
{
	return &smtp->identity;
}

/* --- A round: all mails, to the relays in turn --- */

struct round {
	struct smtp_send *smtp;
	struct smtp_mail *mails;
	size_t count;
	const struct smtp_source *source;
	uint64_t deadline_ms;
	uint64_t last_start_ms;
	struct smtp_mail **open;  /* room for those of a session */
	struct smtp_reply reason; /* the first one why a relay took nothing */
};

static bool is_open(const struct smtp_mail *mail)
{
	return mail->outcome == SMTP_UNTRIED || mail->outcome == SMTP_RETRY;
}

/* The mails that a relay may still be asked about; at most max. */
static size_t collect(struct round *round, uint32_t bit, size_t max)
{
	size_t count = 0;

	for (size_t i = 0; i < round->count && count < max; i++)
		if (is_open(&round->mails[i]) && (round->mails[i].refused_by & bit) == 0)
			round->open[count++] = &round->mails[i];
	return count;
}

/* The relays that some mail may still be offered to. */
static uint32_t find_wanted(const struct round *round)
{
	uint32_t wanted = 0;

	for (size_t i = 0; i < round->count; i++)
		if (is_open(&round->mails[i]))
			wanted |= ~round->mails[i].refused_by;
	return wanted;
}

static uint32_t bit_of(const struct round *round, const struct smtp_relay *relay)
{
	return 1U << (relay - round->smtp->relays.relay);
}

/* The relay of the next session, NULL: none, and how many mails it gets at most. One that was in trouble gets a single
   mail as a probe; and that comes last if another relay is well, since it may take its time. */
static struct smtp_relay *choose(struct round *round, size_t *max)
{
	struct smtp_relays *relays = &round->smtp->relays;
	uint32_t wanted = find_wanted(round);
	struct smtp_relay *relay = smtp_relays_choose(relays, wanted, clock_boot_ms());
	struct smtp_relay *well;
	size_t open;

	*max = round->smtp->session_max;
	if (relay == NULL || relay->pause_ms == 0)
		return relay;
	well = smtp_relays_choose_well(relays, wanted & ~bit_of(round, relay));
	open = collect(round, bit_of(round, relay), round->count);
	if (well == NULL || open == 1) {
		*max = 1;
		return relay;
	}
	*max = open - 1 < *max ? open - 1 : *max;
	return well;
}

/* How long to wait for a reply, but for the one to a text. If another relay can be asked, each gets its share of the
   time. */
static uint64_t find_patience(const struct round *round, size_t others)
{
	uint64_t now_ms = clock_boot_ms();
	uint64_t until_ms = others > 0 ? round->last_start_ms : round->deadline_ms;
	uint64_t most_ms = others > 0 ? PATIENCE_MS : PATIENCE_ALONE_MS;
	uint64_t share_ms = until_ms > now_ms ? (until_ms - now_ms) / (others + 1) : 0;

	return share_ms < most_ms ? share_ms : most_ms;
}

static void offer(struct round *round, struct smtp_relay *relay, size_t max)
{
	struct smtp_relays *relays = &round->smtp->relays;
	uint32_t bit = bit_of(round, relay);
	size_t others = smtp_relays_count_well(relays, find_wanted(round) & ~bit);
	struct smtp_connection connection = {.identity = &round->smtp->identity,
					     .relay = relay,
					     .relay_bit = bit,
					     .mails = round->open,
					     .count = collect(round, bit, max),
					     .source = round->source,
					     .deadline_ms = round->deadline_ms,
					     .last_start_ms = round->last_start_ms,
					     .patience_ms = find_patience(round, others),
					     .has_alternative = others > 0};
	enum smtp_trouble trouble = smtp_session_run(&connection);

	/* A relay that answers is only worse than another one. */
	if (trouble != SMTP_TROUBLE_REFUSES || others > 0)
		smtp_relay_note_session(relay, trouble, clock_boot_ms());
	if (trouble != SMTP_TROUBLE_NONE && round->reason.text[0] == '\0')
		round->reason = connection.reason;
}

/* Who is not to get a mail that another attempt left in doubt: whoever was asked then, as far as that can be known. */
static uint32_t find_unwanted(const struct smtp_relays *relays)
{
	uint32_t wanted = 0;

	for (size_t i = 1; i < relays->count; i++)
		if (relays->relay[i].pause_ms == 0)
			wanted |= 1U << i;
	return wanted != 0 ? ~wanted : 0;
}

static void begin_all(const struct round *round)
{
	uint32_t unwanted = find_unwanted(&round->smtp->relays);

	for (size_t i = 0; i < round->count; i++) {
		struct smtp_mail *mail = &round->mails[i];

		*mail = (struct smtp_mail){.sender = mail->sender,
					   .recipient = mail->recipient,
					   .doubts = mail->doubts,
					   .relay = "",
					   .refused_by = mail->doubts > 0 ? unwanted : 0};
	}
}

/* If no relay has heard of a mail, it gets the reason why. */
static void end_all(const struct round *round)
{
	for (size_t i = 0; i < round->count; i++)
		if (round->mails[i].outcome == SMTP_UNTRIED)
			round->mails[i].reply = round->reason;
}

void smtp_send_mails(struct smtp_send *smtp, struct smtp_mail *mails, size_t count, const struct smtp_source *source,
		     uint64_t deadline_ms)
{
	uint64_t start_ms = clock_boot_ms();
	uint64_t budget_ms = deadline_ms > start_ms ? deadline_ms - start_ms : 0;
	struct round round = {.smtp = smtp,
			      .mails = mails,
			      .count = count,
			      .source = source,
			      .deadline_ms = deadline_ms,
			      .last_start_ms = start_ms + budget_ms / 2,
			      .open = calloc(count, sizeof(struct smtp_mail *))};
	struct smtp_relay *relay;
	size_t max = 0;

	begin_all(&round);
	while (round.open != NULL && (relay = choose(&round, &max)) != NULL) {
		offer(&round, relay, max);
		if (clock_boot_ms() > round.last_start_ms || !source->goes_on(source->context))
			break;
	}
	end_all(&round);
	free((void *)round.open);
}

uint64_t smtp_send_wait_ms(const struct smtp_send *smtp)
{
	return smtp_relays_wait_ms(&smtp->relays, clock_boot_ms());
}

bool smtp_send_is_well(const struct smtp_send *smtp)
{
	return smtp_relays_count_well(&smtp->relays, UINT32_MAX) > 0;
}
