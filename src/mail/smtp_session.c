/* smtp_session.c: one SMTP connection to one relay, through libesmtp. The only file that knows libesmtp.

   libesmtp runs a whole session in one call and leaves much to its caller, which explains the shape of this file:
   - Its return value says nothing of delivery: what became of a mail is noted in its events, as they happen.
   - The next mail is added when the relay has answered for the recipient of the one before, so that a session can end
     early.
   - It knows no TLS of today and no deadline: smtp_dial.c makes the connection, and smtp_timer.c cuts it.
   - Whether a login worked, smtp_monitor.c watches.
   - What is left unread of a text is sent in front of the next one, in another person's mail. BDAT leaves some when a
     chunk is refused, so the relay's offer of it is hidden; and a connection on which a text was begun but not read to
     its end is cut before the next mail, whatever the reason. */
#include "mail/smtp_session.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <auth-client.h>
#include <libesmtp.h> /* after auth-client.h: it declares some functions only then */

#include "base/clock.h"
#include "base/log.h"
#include "mail/smtp_dial.h"
#include "mail/smtp_letter.h"
#include "mail/smtp_timer.h"

#define QUIT_MS 2000U

static void status_to_reply(struct smtp_reply *reply, const smtp_status_t *status)
{
	int enhanced[3] = {status->enh_class, status->enh_subject, status->enh_detail};

	smtp_reply_set(reply, status->code, enhanced, status->text != NULL ? status->text : "");
}

/* --- Texts --- */

/* libesmtp's reader: rewind (length NULL), the text, its end. errno decides whether the end is a failure. */
static const char *on_read(void **unused, int *length, void *context)
{
	struct smtp_letter *letter = context;
	struct smtp_connection *session = letter->connection;
	const char *text = NULL;
	size_t size = 0;

	(void)unused;
	if (length == NULL) {
		letter->given = false;
		letter->text_ended = false;
		return NULL;
	}
	*length = 0;
	errno = 0;
	if (letter->given) {
		letter->text_ended = true;
		return NULL;
	}
	letter->given = true;
	letter->step = "text";
	if (session->source->compose(session->source->context, letter->mail, &text, &size) != RESULT_OK) {
		session->is_unmade = true;
		errno = EIO; /* makes libesmtp drop the connection, the only way to take back DATA */
		return NULL;
	}
	*length = (int)size;
	errno = 0;
	return text;
}

/* Gives libesmtp one more mail, if there is one and time for it. */
static void add_next(struct smtp_connection *session)
{
	struct smtp_letter *letter = &session->letter[session->added];
	smtp_message_t message;

	if (session->added == session->count)
		return;
	if (session->added > 0 &&
	    (clock_boot_ms() >= session->last_start_ms || !session->source->goes_on(session->source->context)))
		return;
	*letter = (struct smtp_letter){.connection = session, .mail = session->mails[session->added], .step = "RCPT"};
	message = smtp_add_message(session->smtp);
	if (message == NULL || !smtp_set_messagecb(message, on_read, letter) ||
	    !smtp_set_reverse_path(message, letter->mail->sender) ||
	    smtp_add_recipient(message, letter->mail->recipient) == NULL)
		return; /* out of memory; a message without a recipient is passed over */
	session->added++;
}

/* --- Events, in the order in which a session has them --- */

static uint64_t time_left_ms(const struct smtp_connection *session)
{
	uint64_t now_ms = clock_boot_ms();

	return now_ms < session->deadline_ms ? session->deadline_ms - now_ms : 0;
}

static void on_mail_status(struct smtp_connection *session, smtp_message_t message)
{
	struct smtp_reply reply;

	session->current = &session->letter[session->answered++];
	status_to_reply(&reply, smtp_reverse_path_status(message));
	if (smtp_reply_is_positive(&reply) && !session->ends_at_mail)
		return;
	session->current = NULL;
	if (smtp_reply_is_positive(&reply)) {
		session->settled++;
		session->reason = reply;
		smtp_timer_cut();
	} else if (session->reason.text[0] == '\0') {
		session->reason = reply;
		session->is_our_fault = reply.code >= 500;
		session->refused_step = "MAIL";
	}
}

static void on_recipient_status(struct smtp_connection *session, smtp_recipient_t recipient)
{
	struct smtp_reply reply;
	enum smtp_verdict verdict;

	if (session->current == NULL)
		return;
	status_to_reply(&reply, smtp_recipient_status(recipient));
	verdict = smtp_letter_address(session->current, &reply);
	/* If the relay is in trouble, the others are better off elsewhere. */
	if (verdict == SMTP_ACCEPTS || verdict == SMTP_REFUSES_RECIPIENT ||
	    (verdict != SMTP_CLOSES && !session->has_alternative))
		add_next(session);
}

/* The answer to DATA if it was no 354, else the one to the text. */
static void on_message_status(struct smtp_connection *session, smtp_message_t message)
{
	struct smtp_letter *letter = session->current;
	struct smtp_reply reply;

	status_to_reply(&reply, smtp_message_transfer_status(message));
	if (letter != NULL && !letter->is_concluded)
		smtp_letter_hand_over(letter, &reply);
	/* libesmtp would send the rest at the head of the next mail. */
	if (letter != NULL && letter->given && !letter->text_ended)
		smtp_timer_cut();
	/* What follows the last mail is QUIT; nobody should wait long for its answer. */
	if (session->answered == session->added)
		smtp_timer_set(QUIT_MS);
}

static void on_event(smtp_session_t smtp, int event, void *context, ...)
{
	struct smtp_connection *session = context;
	va_list values;

	(void)smtp;
	va_start(values, context);
	switch (event) {
	case SMTP_EV_CONNECT:
		if (smtp_dial_give(&session->dial) != RESULT_OK)
			smtp_reply_say(&session->reason, "connect: out of resources");
		break;
	case SMTP_EV_MAILSTATUS:
		(void)va_arg(values, char *);
		on_mail_status(session, va_arg(values, smtp_message_t));
		break;
	case SMTP_EV_RCPTSTATUS:
		(void)va_arg(values, char *);
		on_recipient_status(session, va_arg(values, smtp_recipient_t));
		break;
	case SMTP_EV_MESSAGESENT:
		on_message_status(session, va_arg(values, smtp_message_t));
		break;
	default:
		break;
	}
	va_end(values);
}

static void on_bytes(const char *bytes, int length, int direction, void *context)
{
	struct smtp_connection *session = context;
	bool goes_on = true;

	if (direction == 0)
		goes_on = smtp_monitor_received(&session->monitor, (char *)bytes, (size_t)length);
	else if (direction == 1)
		goes_on = smtp_monitor_sends(&session->monitor, bytes, (size_t)length);
	if (!goes_on)
		smtp_timer_cut();
}

/* The user and the password, as a mechanism asks for them. */
static int on_login(auth_client_request_t request, char **result, int fields, void *context)
{
	const struct smtp_identity *sender = context;

	for (int i = 0; i < fields; i++) {
		if ((request[i].flags & AUTH_USER) != 0)
			result[i] = (char *)sender->user;
		else if ((request[i].flags & AUTH_PASS) != 0)
			result[i] = (char *)sender->password;
		else
			return 0;
	}
	return 1;
}

/* --- A session from end to end --- */

/* What was sent in vain is repeated elsewhere; a text that was given is waited for as long as there is time, since
   nobody else may have it meanwhile. */
static bool set_timeouts(smtp_session_t smtp, const struct smtp_connection *session)
{
	const int force = Timeout_OVERRIDE_RFC2822_MINIMUM;
	long patience = (long)session->patience_ms;
	long all = (long)time_left_ms(session) + 1000; /* the timer comes first */

	return smtp_set_timeout(smtp, Timeout_GREETING | force, patience) != 0 &&
	       smtp_set_timeout(smtp, Timeout_ENVELOPE | force, patience) != 0 &&
	       smtp_set_timeout(smtp, Timeout_DATA | force, patience) != 0 &&
	       smtp_set_timeout(smtp, Timeout_TRANSFER | force, all) != 0 &&
	       smtp_set_timeout(smtp, Timeout_DATA2 | force, all) != 0;
}

static bool set_up(struct smtp_connection *session, auth_context_t login)
{
	smtp_session_t smtp = session->smtp;

	if (!smtp_set_server(smtp, session->dial.name) || !smtp_set_hostname(smtp, session->identity->helo) ||
	    !set_timeouts(smtp, session) || !smtp_set_eventcb(smtp, on_event, session) ||
	    !smtp_set_monitorcb(smtp, on_bytes, session, 0))
		return false;
	if (login != NULL &&
	    (!auth_set_mechanism_flags(login, AUTH_PLUGIN_PLAIN, 0) ||
	     !auth_set_interact_cb(login, on_login, (void *)session->identity) || !smtp_auth_set_context(smtp, login)))
		return false;
	add_next(session);
	return session->added == 1;
}

/* Why the relay could not be used, if no event has said so. */
static void find_reason(struct smtp_connection *session)
{
	const struct smtp_monitor *monitor = &session->monitor;
	char text[SMTP_REPLY_BYTES];

	if (session->reason.text[0] != '\0')
		return;
	if (monitor->heard.text[0] != '\0') {
		session->reason = monitor->heard;
		session->is_our_fault = monitor->heard.code == 0 || monitor->heard.code >= 500;
		return;
	}
	(void)snprintf(text, sizeof(text), "%s: %s", monitor->step != NULL ? monitor->step : "greeting",
		       smtp_letter_lost);
	smtp_reply_say(&session->reason, text);
}

static enum smtp_trouble trouble_of(const struct smtp_connection *session)
{
	if (session->settled > 0 || session->is_unmade)
		return SMTP_TROUBLE_NONE;
	if (session->monitor.is_login_refused && session->is_our_fault)
		return SMTP_TROUBLE_LOGIN;
	return session->has_refused ? SMTP_TROUBLE_REFUSES : SMTP_TROUBLE_AWAY;
}

/* One line for a session that took nothing, and one a minute while the relay refuses everybody. */
static void report(struct smtp_connection *session, enum smtp_trouble trouble)
{
	struct smtp_relay *relay = session->relay;
	const char *reason = session->reason.text;
	uint64_t now_ms = clock_boot_ms();

	if (trouble != SMTP_TROUBLE_NONE && session->is_our_fault)
		log_event(LOG_ERROR, "smtp_misconfigured", LOG_TEXT("relay", relay->name), LOG_TEXT("reason", reason));
	else if (trouble == SMTP_TROUBLE_REFUSES)
		log_event(LOG_WARNING, "smtp_relay_refuses", LOG_TEXT("relay", relay->name),
			  LOG_TEXT("reason", reason));
	else if (trouble != SMTP_TROUBLE_NONE)
		log_event(LOG_WARNING, "smtp_relay_unusable", LOG_TEXT("relay", relay->name),
			  LOG_TEXT("reason", reason));
	else if (session->monitor.needs_login && !session->monitor.is_logged_in && !relay->login_warned) {
		relay->login_warned = true;
		log_event(LOG_WARNING, "smtp_login_not_accepted", LOG_TEXT("relay", relay->name));
	}
	if (smtp_relay_refuses_everybody(relay) && log_is_due(&relay->quiet_until_ms, now_ms))
		log_event(LOG_ERROR, "smtp_refuses_everybody", LOG_TEXT("relay", relay->name),
			  LOG_NUMBER("refused", relay->refused), LOG_TEXT("reason", reason));
}

/* What libesmtp does with the connection that was made for it. */
static void talk(struct smtp_connection *session)
{
	auth_context_t login = session->monitor.needs_login ? auth_create_context() : NULL;

	session->letter = calloc(session->count, sizeof(*session->letter));
	session->smtp = smtp_create_session();
	if (session->smtp == NULL || session->letter == NULL || (session->monitor.needs_login && login == NULL) ||
	    !set_up(session, login)) {
		smtp_reply_say(&session->reason, "out of memory");
	} else {
		(void)smtp_start_session(session->smtp);
		if (session->current != NULL && !session->current->is_concluded)
			smtp_letter_lose(session->current);
		find_reason(session);
	}
	if (session->smtp != NULL)
		smtp_destroy_session(session->smtp);
	if (login != NULL)
		auth_destroy_context(login);
	free(session->letter);
}

enum smtp_trouble smtp_session_run(struct smtp_connection *session)
{
	struct smtp_dial *dial = &session->dial;
	enum smtp_trouble trouble;

	session->monitor = (struct smtp_monitor){.needs_login = session->identity->user[0] != '\0'};
	smtp_timer_set(time_left_ms(session));
	if (smtp_dial_open(dial, session->relay, session->identity->helo, session->patience_ms, session->deadline_ms) ==
	    RESULT_OK) {
		talk(session);
	} else {
		session->reason = dial->reason;
		session->is_our_fault = dial->is_our_fault;
	}
	smtp_dial_close(dial);
	smtp_timer_stop();
	trouble = trouble_of(session);
	if (!session->is_probe)
		report(session, trouble);
	return trouble;
}

enum result smtp_session_prepare(void)
{
	if (smtp_timer_prepare() != RESULT_OK)
		return RESULT_FAULT;
	auth_client_init();
	return RESULT_OK;
}

void smtp_session_release(void)
{
	auth_client_exit();
}
