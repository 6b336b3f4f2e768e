/* smtp_send.c: sends mails to the first relay that can be used. */
#include "mail/smtp_send.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/private_file.h"
#include "mail/smtp_relay.h"
#include "mail/smtp_session.h"

struct smtp_send {
	struct smtp_relays relays;
	struct smtp_identity identity;
};

/* --- Settings --- */

static enum result read_identity(struct smtp_identity *identity, const struct settings *settings)
{
	identity->user = settings->smtp_user;
	memcpy(identity->address, settings->email_from.address, sizeof(identity->address));
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

/* --- All mails --- */

/* How many of the mails in front have an outcome. */
static size_t count_done(const struct smtp_mail *mails, size_t count)
{
	size_t done = 0;

	while (done < count && mails[done].outcome != SMTP_UNTRIED)
		done++;
	return done;
}

static void begin_all(struct smtp_mail *mails, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		mails[i].outcome = SMTP_UNTRIED;
		mails[i].relay = "";
		smtp_reply_say(&mails[i].reply, "");
	}
}

static enum result give_all_up(struct smtp_mail *mails, size_t count, const struct smtp_reply *reason)
{
	for (size_t i = 0; i < count; i++) {
		mails[i].outcome = SMTP_RETRY;
		mails[i].reply = *reason;
		mails[i].finished_ms = clock_wall_ms();
	}
	return RESULT_UNAVAILABLE;
}

enum result smtp_send_mails(struct smtp_send *smtp, struct smtp_mail *mails, size_t count,
			    const struct smtp_source *source, uint64_t deadline_ms)
{
	uint64_t start_ms = clock_boot_ms();
	uint64_t budget_ms = deadline_ms > start_ms ? deadline_ms - start_ms : 0;
	bool was_tried[SETTINGS_RELAYS_MAX] = {false};
	bool was_usable = false;
	struct smtp_reply reason = {.code = 0};
	struct smtp_relay *relay;
	size_t done = 0;

	begin_all(mails, count);
	while (done < count && (relay = smtp_relays_choose(&smtp->relays, was_tried, clock_boot_ms())) != NULL) {
		struct smtp_connection connection = {.identity = &smtp->identity,
						     .relay = relay,
						     .mails = mails + done,
						     .count = count - done,
						     .source = source,
						     .first = done,
						     .deadline_ms = deadline_ms,
						     .last_start_ms = start_ms + budget_ms / 2};

		if (clock_boot_ms() > connection.last_start_ms || (done > 0 && !source->goes_on(source->context)))
			break;
		if (smtp_session_run(&connection) == RESULT_OK) {
			relay->retry_at_ms = 0;
			was_usable = true;
		} else {
			relay->retry_at_ms = clock_boot_ms() + SMTP_RELAY_COOL_DOWN_MS;
			was_tried[relay - smtp->relays.relay] = true;
			reason = connection.reason;
		}
		done += count_done(mails + done, count - done);
	}
	return was_usable ? RESULT_OK : give_all_up(mails, count, &reason);
}
