/* mail.c: delivers mails to the first relay that can be used. */
#include "mail.h"

#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"
#include "relay.h"
#include "secret.h"
#include "session.h"

struct mail {
	struct relays relays;
	struct session_sender sender;
};

/* --- All jobs --- */

/* How many of the jobs in front have an outcome. */
static size_t count_done(const struct mail_job *jobs, size_t count)
{
	size_t done = 0;

	while (done < count && jobs[done].outcome != MAIL_UNTRIED)
		done++;
	return done;
}

enum result mail_send(struct mail *mail, struct mail_job *jobs, size_t count, const struct mail_source *source,
		      uint64_t deadline_ms)
{
	uint64_t start = clock_boot_ms();
	uint64_t budget = deadline_ms > start ? deadline_ms - start : 0;
	bool tried[RELAYS_MAX] = {false};
	bool was_usable = false;
	size_t done = 0;
	struct reply reason = {.code = 0};
	struct relay *relay;

	for (size_t i = 0; i < count; i++) {
		jobs[i].outcome = MAIL_UNTRIED;
		jobs[i].relay = "";
		reply_say(&jobs[i].reply, "");
	}
	while (done < count && (relay = relays_choose(&mail->relays, tried, clock_boot_ms())) != NULL) {
		struct session session = {.sender = &mail->sender,
					  .relay = relay,
					  .jobs = jobs + done,
					  .count = count - done,
					  .source = source,
					  .first = done,
					  .deadline_ms = deadline_ms,
					  .last_start_ms = start + budget / 2};

		if (clock_boot_ms() > session.last_start_ms || (done > 0 && !source->goes_on(source->context)))
			break;
		if (session_run(&session) == RESULT_OK) {
			relay->retry_at_ms = 0;
			was_usable = true;
		} else {
			relay->retry_at_ms = clock_boot_ms() + RELAY_COOL_DOWN_MS;
			tried[relay - mail->relays.relay] = true;
			reason = session.reason;
		}
		done += count_done(jobs + done, count - done);
	}
	if (was_usable)
		return RESULT_OK;
	for (size_t i = 0; i < count; i++) {
		jobs[i].outcome = MAIL_RETRY;
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

static enum result read_password(struct mail *mail, const struct config *config)
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

enum result mail_new(struct mail **mail, const struct config *config, const char *sender)
{
	struct mail *made = calloc(1, sizeof *made);
	enum result result = RESULT_FAULT;

	if (made == NULL || strlen(sender) >= sizeof made->sender.address || session_start() != RESULT_OK)
		goto out;
	memcpy(made->sender.address, sender, strlen(sender) + 1);
	result = relays_read(&made->relays, config);
	if (result == RESULT_OK)
		result = read_password(made, config);
out:
	if (result == RESULT_OK)
		*mail = made;
	else
		mail_free(made);
	return result;
}

void mail_free(struct mail *mail)
{
	if (mail == NULL)
		return;
	relays_free(&mail->relays);
	explicit_bzero(mail, sizeof *mail);
	free(mail);
	session_end();
}
