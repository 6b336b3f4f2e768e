/* smtp_send.c: delivers mails to the first relay that can be used. */
#include "mail/smtp_send.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "mail/smtp_relay.h"
#include "mail/smtp_session.h"

struct smtp_send {
	struct smtp_relays relays;
	struct smtp_identity sender;
};

/* --- All jobs --- */

/* How many of the jobs in front have an outcome. */
static size_t count_done(const struct smtp_mail *jobs, size_t count)
{
	size_t done = 0;

	while (done < count && jobs[done].outcome != SMTP_UNTRIED)
		done++;
	return done;
}

enum result smtp_send_mails(struct smtp_send *mail, struct smtp_mail *jobs, size_t count,
			    const struct smtp_source *source, uint64_t deadline_ms)
{
	uint64_t start = clock_boot_ms();
	uint64_t budget = deadline_ms > start ? deadline_ms - start : 0;
	bool tried[SMTP_RELAYS_MAX] = {false};
	bool was_usable = false;
	size_t done = 0;
	struct smtp_reply reason = {.code = 0};
	struct smtp_relay *relay;

	for (size_t i = 0; i < count; i++) {
		jobs[i].outcome = SMTP_UNTRIED;
		jobs[i].relay = "";
		smtp_reply_say(&jobs[i].reply, "");
	}
	while (done < count && (relay = smtp_relays_choose(&mail->relays, tried, clock_boot_ms())) != NULL) {
		struct smtp_connection session = {.sender = &mail->sender,
						  .relay = relay,
						  .jobs = jobs + done,
						  .count = count - done,
						  .source = source,
						  .first = done,
						  .deadline_ms = deadline_ms,
						  .last_start_ms = start + budget / 2};

		if (clock_boot_ms() > session.last_start_ms || (done > 0 && !source->goes_on(source->context)))
			break;
		if (smtp_session_run(&session) == RESULT_OK) {
			relay->retry_at_ms = 0;
			was_usable = true;
		} else {
			relay->retry_at_ms = clock_boot_ms() + SMTP_RELAY_COOL_DOWN_MS;
			tried[relay - mail->relays.relay] = true;
			reason = session.reason;
		}
		done += count_done(jobs + done, count - done);
	}
	if (was_usable)
		return RESULT_OK;
	for (size_t i = 0; i < count; i++) {
		jobs[i].outcome = SMTP_RETRY;
		jobs[i].reply = reason;
		jobs[i].finished_ms = clock_wall_ms();
	}
	return RESULT_UNAVAILABLE;
}

/* --- Settings --- */

static enum result refuse(const char *setting, const char *reason)
{
	log_event(LOG_ERROR, "setting_invalid", LOG_TEXT("setting", setting), LOG_TEXT("reason", reason));
	return RESULT_INVALID;
}

static enum result read_password(struct smtp_send *mail, const struct config *config)
{
	mail->sender.user = config->smtp_user;
	if (config->smtp_user[0] == '\0')
		return RESULT_OK;
	if (config->smtp_password_file[0] == '\0')
		return refuse("SMTP_PASSWORD_FILE", "SMTP_USER is set, so a file with its password must be");
	if (secret_read_file(config->smtp_password_file, mail->sender.password, sizeof mail->sender.password) !=
	    RESULT_OK)
		return refuse("SMTP_PASSWORD_FILE", "it cannot be read; see the event before this one");
	return RESULT_OK;
}

enum result smtp_send_new(struct smtp_send **mail, const struct config *config, const char *sender)
{
	struct smtp_send *made = calloc(1, sizeof *made);
	enum result result = RESULT_FAULT;

	if (made == NULL || strlen(sender) >= sizeof made->sender.address || smtp_session_prepare() != RESULT_OK)
		goto out;
	memcpy(made->sender.address, sender, strlen(sender) + 1);
	result = smtp_relays_read(&made->relays, config);
	if (result == RESULT_OK)
		result = read_password(made, config);
out:
	if (result == RESULT_OK)
		*mail = made;
	else
		smtp_send_free(made);
	return result;
}

void smtp_send_free(struct smtp_send *mail)
{
	if (mail == NULL)
		return;
	smtp_relays_free(&mail->relays);
	explicit_bzero(mail, sizeof *mail);
	free(mail);
	smtp_session_release();
}
