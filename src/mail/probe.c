/* probe.c: what an operator asks first: does each relay take our mail? */
#include "mail/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/process.h"
#include "mail/smtp_session.h"
#include "otp/address.h"

#define PROBE_MS 60000U
#define PATIENCE_MS 30000U
#define LIFETIME_MS 600000
#define STEPS_MAX 12U

/* The steps of a session with the three kinds of relays, and what helps if one fails. */
static const struct step {
	const char *name;
	bool plain, starttls, implicit;
	const char *fix;
} steps[] = {
    {"name", true, true, true, "see that the host's name is right, and that this machine's resolver answers"},
    {"connect", true, true, true,
     "see that the port is right and open: many networks close 25; try 587 or smtps://HOST:465"},
    {"TLS", false, false, true,
     "the certificate must be valid for the host as SMTP_RELAYS has it; SMTP_CA_FILE names other authorities"},
    {"greeting", true, true, true,
     "it is no mail server, is busy, or does not let this machine in; TLS from the first byte needs smtps://"},
    {"EHLO", true, true, true, "set SMTP_HELO to the name that this machine has in DNS"},
    {"STARTTLS", false, true, false, "use a port that has TLS: 587, or smtps://HOST:465"},
    {"TLS", false, true, false,
     "the certificate must be valid for the host as SMTP_RELAYS has it; SMTP_CA_FILE names other authorities"},
    {"AUTH", true, true, true,
     "see SMTP_USER and SMTP_PASSWORD_FILE; some providers want a password made for applications"},
    {"MAIL", true, true, true,
     "the relay must let us send as EMAIL_FROM, or as RETURN_PATH if that is set; most want a login"},
    {"RCPT", true, true, true, "the relay must relay for us: by login, or by this machine's address"},
    {"DATA", true, true, true, "the relay's log says more"},
    {"text", true, true, true, "the relay's log says more; SPF, DKIM and DMARC of the sender's domain may be wrong"},
};

struct probe {
	const struct message_composer *composer;
	const char *sender;
	char recipient[ADDRESS_MAX + 1];
	char text[MESSAGE_BYTES];
	size_t failures;
};

static enum result compose(void *context, const struct smtp_mail *mail, const char **text, size_t *length)
{
	struct probe *probe = context;
	int64_t now_ms = clock_wall_ms();
	struct message_request request = {.recipient = mail->recipient,
					  .code = "000000",
					  .locale = "",
					  .purpose = "",
					  .created_ms = now_ms,
					  .expires_ms = now_ms + LIFETIME_MS};

	process_random(request.id, sizeof(request.id));
	memcpy(request.challenge, request.id, sizeof(request.challenge));
	*text = probe->text;
	return message_build(probe->composer, &request, probe->text, sizeof(probe->text), length);
}

static bool goes_on(void *context)
{
	(void)context;
	return true;
}

/* The step that failed; NULL: none. */
static const char *find_failed(const struct smtp_connection *session, enum smtp_trouble trouble)
{
	if (trouble == SMTP_TROUBLE_NONE && session->mails[0]->outcome != SMTP_FAILED)
		return NULL;
	if (session->dial.step != NULL)
		return session->dial.step;
	if (session->refused_step != NULL)
		return session->refused_step;
	if (session->monitor.is_login_refused)
		return "AUTH";
	return session->monitor.step == NULL                ? "greeting"
	       : strcmp(session->monitor.step, "HELO") == 0 ? "EHLO"
							    : session->monitor.step;
}

static bool is_part(const struct step *step, const struct smtp_connection *session)
{
	const struct smtp_relay *relay = session->relay;
	bool is_after_mail = step > &steps[8];

	if (strcmp(step->name, "AUTH") == 0 && session->identity->user[0] == '\0')
		return false;
	if (is_after_mail && session->ends_at_mail)
		return false;
	return relay->is_implicit ? step->implicit : relay->tls != NULL ? step->starttls : step->plain;
}

static void print_well(const struct step *step, const struct smtp_connection *session)
{
	const char *detail = "";

	if (strcmp(step->name, "TLS") == 0)
		detail = session->dial.proof;
	else if (strcmp(step->name, "AUTH") == 0 && !session->monitor.is_logged_in)
		detail = "no login is offered, and none was asked for";
	(void)printf("%s: %s: ok%s%s\n", session->relay->name, step->name, detail[0] != '\0' ? ": " : "", detail);
}

/* Why a step failed, without its name in front. */
static const char *reason_of(const struct smtp_connection *session, const char *step)
{
	const char *reason = session->reason.text;
	size_t length = strlen(step);

	return strncmp(reason, step, length) == 0 && strncmp(reason + length, ": ", 2) == 0 ? reason + length + 2
											    : reason;
}

/* Every step up to the one that failed, and that with its fix. */
static void print_steps(const struct smtp_connection *session, const char *failed)
{
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		if (!is_part(&steps[i], session))
			continue;
		if (failed != NULL && strcmp(steps[i].name, failed) == 0) {
			(void)printf("%s: %s: FAILED: %s. To mend it: %s.\n", session->relay->name, failed,
				     reason_of(session, failed), steps[i].fix);
			return;
		}
		print_well(&steps[i], session);
	}
}

static void probe_relay(struct probe *probe, struct smtp_relay *relay, const struct smtp_identity *identity)
{
	const struct smtp_source source = {.context = probe, .compose = compose, .goes_on = goes_on};
	/* Without a recipient it is over before one is named. */
	struct smtp_mail mail = {.sender = probe->sender,
				 .recipient = probe->recipient[0] != '\0' ? probe->recipient : probe->sender};
	struct smtp_mail *mails[] = {&mail};
	uint64_t now_ms = clock_boot_ms();
	struct smtp_connection session = {.identity = identity,
					  .relay = relay,
					  .mails = mails,
					  .count = 1,
					  .source = &source,
					  .deadline_ms = now_ms + PROBE_MS,
					  .last_start_ms = now_ms + PROBE_MS,
					  .patience_ms = PATIENCE_MS,
					  .is_probe = true,
					  .ends_at_mail = probe->recipient[0] == '\0'};
	const char *failed = find_failed(&session, smtp_session_run(&session));

	print_steps(&session, failed);
	probe->failures += failed != NULL;
	(void)fflush(stdout);
}

int probe_run(struct smtp_send *smtp, const struct composers *composers, const char *sender, const char *recipient)
{
	struct smtp_relays *relays = smtp_send_relays(smtp);
	struct probe *probe = calloc(1, sizeof(*probe));
	int status;

	if (probe == NULL)
		return EXIT_FAILURE;
	probe->composer = composers_find(composers, APPLICATION_DEFAULT);
	probe->sender = sender[0] != '\0' ? sender : message_composer_sender(probe->composer);
	if (recipient[0] != '\0' && !address_is_recipient(recipient)) {
		(void)fprintf(stderr, "otp-worker: --probe: %s\n", "this is no address that mail could be sent to");
		free(probe);
		return 2;
	}
	(void)snprintf(probe->recipient, sizeof(probe->recipient), "%s", recipient);
	for (size_t i = 0; i < relays->count; i++)
		probe_relay(probe, &relays->relay[i], smtp_send_identity(smtp));
	status = probe->failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
	free(probe);
	return status;
}
