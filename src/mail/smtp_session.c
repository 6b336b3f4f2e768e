/* smtp_session.c: one SMTP connection to one relay, through libesmtp. The only file that knows libesmtp.

   libesmtp runs a whole session in one call and leaves much to its caller, which explains the shape of this file:
   - Its return value says nothing of delivery: what became of a mail is noted in its events, as they happen.
   - The next mail is added when the recipient of the one before was accepted, so that a session can end early.
   - connect() has no timeout, and the others are per read: a timer interrupts the former and cuts the connection.
   - What was sent in the clear behind the answer to STARTTLS, and whether a login worked, the monitor callback watches.
   - What is left unread of a text is sent in front of the next one, in another person's mail. BDAT leaves some when a
     chunk is refused, so the relay's offer of it is hidden; and a connection on which a text was begun but not read to
     its end is cut before the next mail, whatever the reason. */
#include "mail/smtp_session.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <auth-client.h>
#include <libesmtp.h> /* after auth-client.h: it declares some functions only then */

#include "base/clock.h"
#include "base/log.h"
#include "mail/smtp_offers.h"
#include "mail/smtp_tls.h"

/* As libesmtp.h declares it, but only behind OpenSSL's headers, which are smtp_tls.c's business. */
int smtp_starttls_set_ctx(smtp_session_t session, struct ssl_ctx_st *context);

#define CONNECT_MS 5000L
#define COMMAND_MS 10000L
#define DATA_MS 30000L
#define QUIT_MS 2000L

/* One mail within a session: what libesmtp's message callback gets. */
struct letter {
	struct smtp_connection *session;
	size_t index;
	bool given; /* the text was handed over; the next call is its end */
};

/* For the timer: the connection to cut (-1: not found), and whether there is one. */
static volatile sig_atomic_t live_socket = -1;
static volatile sig_atomic_t is_connected;

/* --- The timer --- */

/* Nothing more is read or written, and libesmtp ends the session. If the connection could not be found, the process
   ends: neither may a lease be overstepped nor a text go astray. Safe in a signal handler. */
static void cut_connection(void)
{
	if (live_socket >= 0)
		(void)shutdown(live_socket, SHUT_RDWR);
	else
		_exit(1);
}

/* While connecting, connect() returns with EINTR and libesmtp goes on to the next address. Later the connection is cut.
 */
static void on_alarm(int number)
{
	int saved = errno;

	(void)number;
	if (is_connected)
		cut_connection();
	errno = saved;
}

/* Fires after first_ms (0: never) and then every again_ms. */
static void set_timer(long first_ms, long again_ms)
{
	struct itimerval timer = {.it_value = {first_ms / 1000, first_ms % 1000 * 1000},
				  .it_interval = {again_ms / 1000, again_ms % 1000 * 1000}};

	(void)setitimer(ITIMER_REAL, &timer, NULL);
}

/* --- Outcomes --- */

static const char connection_lost[] = "connection lost, or no reply in time";

static void status_to_reply(struct smtp_reply *reply, const smtp_status_t *status)
{
	int enhanced[3] = {status->enh_class, status->enh_subject, status->enh_detail};

	smtp_reply_set(reply, status->code, enhanced, status->text != NULL ? status->text : "");
}

static void conclude(struct smtp_connection *session, struct smtp_mail *mail, enum smtp_outcome outcome)
{
	mail->outcome = outcome;
	mail->relay = session->relay->name;
	mail->finished_ms = clock_wall_ms();
}

/* libesmtp's reader: rewind (length NULL), the text, its end. errno decides whether the end is a failure. */
static const char *on_read(void **unused, int *length, void *context)
{
	struct letter *letter = context;
	struct smtp_connection *session = letter->session;
	const char *text = NULL;
	size_t size = 0;

	(void)unused;
	if (length == NULL) {
		letter->given = false;
		session->text_ended = false;
		return NULL;
	}
	*length = 0;
	errno = 0;
	if (letter->given) {
		session->text_ended = true;
		return NULL;
	}
	letter->given = true;
	if (session->source->compose(session->source->context, session->first + letter->index, &text, &size) !=
	    RESULT_OK) {
		smtp_reply_say(&session->mails[letter->index].reply, "the mail could not be made");
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
	struct letter *letter = &session->letter[session->added];
	smtp_message_t message;

	if (session->added == session->count)
		return;
	if (session->added > 0 &&
	    (clock_boot_ms() >= session->last_start_ms || !session->source->goes_on(session->source->context)))
		return;
	*letter = (struct letter){.session = session, .index = session->added};
	message = smtp_add_message(session->smtp);
	if (message == NULL || !smtp_set_messagecb(message, on_read, letter) ||
	    !smtp_set_reverse_path(message, session->identity->address) ||
	    smtp_add_recipient(message, session->mails[session->added].recipient) == NULL)
		return; /* out of memory; a message without a recipient is passed over */
	session->added++;
}

/* --- Events, in the order in which a session has them --- */

/* The connection's descriptor: libesmtp does not tell it, but it is one of the lowest that were free, and connected. */
static int find_socket(int lowest, int port)
{
	for (int fd = lowest; fd < lowest + 16; fd++) {
		struct sockaddr_in6 peer = {.sin6_family = AF_UNSPEC};
		socklen_t length = sizeof(peer);

		/* The port is at the same place in both families. */
		if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 &&
		    (peer.sin6_family == AF_INET || peer.sin6_family == AF_INET6) && ntohs(peer.sin6_port) == port)
			return fd;
	}
	return -1;
}

static void on_connect(struct smtp_connection *session)
{
	uint64_t now = clock_boot_ms();
	int on = 1;

	session->was_connected = true;
	live_socket = find_socket(session->lowest_fd, session->relay->port);
	is_connected = 1;
	set_timer(now < session->deadline_ms ? (long)(session->deadline_ms - now) : 1, 1000);
	/* A mail is several small writes: Nagle's algorithm would hold back the last one for 40 ms. */
	if (live_socket >= 0)
		(void)setsockopt(live_socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void on_mail_status(struct smtp_connection *session, smtp_message_t message)
{
	struct smtp_reply reply;

	session->answered++;
	session->text_ended = false;
	status_to_reply(&reply, smtp_reverse_path_status(message));
	if (smtp_reply_is_positive(&reply)) {
		session->accepted = true;
	} else {
		session->reason = reply;
		session->is_our_fault = reply.code >= 500;
	}
}

static void on_recipient_status(struct smtp_connection *session, smtp_recipient_t recipient)
{
	struct smtp_mail *mail = &session->mails[session->answered - 1];
	bool can_judge = session->identity->user[0] == '\0' || session->is_logged_in;

	status_to_reply(&mail->reply, smtp_recipient_status(recipient));
	if (smtp_reply_is_positive(&mail->reply))
		add_next(session);
	else if (can_judge && smtp_reply_refuses_recipient(&mail->reply))
		conclude(session, mail, SMTP_FAILED);
	else
		conclude(session, mail, SMTP_RETRY);
}

static void on_message_status(struct smtp_connection *session, smtp_message_t message)
{
	struct smtp_mail *mail = &session->mails[session->answered - 1];
	const smtp_status_t *status = smtp_message_transfer_status(message);

	if (mail->outcome == SMTP_UNTRIED) {
		if (status->code != 0)
			status_to_reply(&mail->reply, status);
		else
			smtp_reply_say(&mail->reply, connection_lost);
		conclude(session, mail,
			 session->text_ended && smtp_reply_is_positive(&mail->reply) ? SMTP_SENT : SMTP_RETRY);
	}
	/* libesmtp would send the rest at the head of the next mail. */
	if (session->letter[session->answered - 1].given && !session->text_ended)
		cut_connection();
	/* What follows the last mail is QUIT; nobody should wait long for its answer. */
	if (session->answered == session->added)
		set_timer(QUIT_MS, 1000);
}

static void on_event(smtp_session_t smtp, int event, void *context, ...)
{
	struct smtp_connection *session = context;
	va_list values;

	(void)smtp;
	va_start(values, context);
	switch (event) {
	case SMTP_EV_CONNECT:
		on_connect(session);
		break;
	case SMTP_EV_EXTNA_STARTTLS:
		smtp_reply_say(&session->reason, "TLS: the relay does not offer STARTTLS");
		break;
	case SMTP_EV_WRONG_PEER_CERTIFICATE: {
		/* It compares with the canonical name of DNS; OpenSSL has compared with ours. */
		int *is_ok = va_arg(values, int *);

		(void)va_arg(values, char *);
		*is_ok = smtp_tls_is_verified(va_arg(values, void *));
		break;
	}
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

static bool starts_with(const char *text, int length, const char *word)
{
	return (size_t)length >= strlen(word) && memcmp(text, word, strlen(word)) == 0;
}

static void on_bytes_sent(struct smtp_connection *session, const char *bytes, int length)
{
	if (starts_with(bytes, length, "STARTTLS"))
		session->awaits_tls = true;
	else if (starts_with(bytes, length, "AUTH "))
		session->is_logging_in = true;
	else if (starts_with(bytes, length, "MAIL "))
		session->has_begun = true;
}

/* Keeps a refusal that comes before the first MAIL: libesmtp does not hand it out. */
static void on_refusal(struct smtp_connection *session, const char *bytes, int length)
{
	char text[SMTP_REPLY_BYTES];
	static const int no_triplet[3];

	if (length < 4 || bytes[1] < '0' || bytes[1] > '9' || bytes[2] < '0' || bytes[2] > '9')
		return;
	(void)snprintf(text, sizeof(text), "%.*s", length - 4, bytes + 4);
	smtp_reply_set(&session->heard, (bytes[0] - '0') * 100 + (bytes[1] - '0') * 10 + bytes[2] - '0', no_triplet,
		       text);
}

static void on_bytes_received(struct smtp_connection *session, char *bytes, int length)
{
	if (!session->has_begun)
		smtp_offers_hide(&session->offers, bytes, (size_t)length);
	if (session->awaits_tls) {
		const char *end = memchr(bytes, '\n', (size_t)length);

		if (end != NULL && end + 1 < bytes + length)
			smtp_tls_distrust(session->relay->tls, "plaintext was injected after STARTTLS");
		session->awaits_tls = false;
	}
	if (session->is_logging_in && starts_with(bytes, length, "235"))
		session->is_logged_in = true;
	if (!session->has_begun && length > 0 && (bytes[0] == '4' || bytes[0] == '5'))
		on_refusal(session, bytes, length);
}

static void on_bytes(const char *bytes, int length, int direction, void *context)
{
	if (direction == 0)
		on_bytes_received(context, (char *)bytes, length);
	else if (direction == 1)
		on_bytes_sent(context, bytes, length);
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

static bool set_timeouts(smtp_session_t smtp)
{
	const int force = Timeout_OVERRIDE_RFC2822_MINIMUM;

	return smtp_set_timeout(smtp, Timeout_GREETING | force, COMMAND_MS) != 0 &&
	       smtp_set_timeout(smtp, Timeout_ENVELOPE | force, COMMAND_MS) != 0 &&
	       smtp_set_timeout(smtp, Timeout_DATA | force, COMMAND_MS) != 0 &&
	       smtp_set_timeout(smtp, Timeout_TRANSFER | force, DATA_MS) != 0 &&
	       smtp_set_timeout(smtp, Timeout_DATA2 | force, DATA_MS) != 0;
}

static bool set_up(struct smtp_connection *session, auth_context_t login)
{
	smtp_session_t smtp = session->smtp;

	if (!smtp_set_server(smtp, session->relay->name) ||
	    !smtp_set_hostname(smtp, strrchr(session->identity->address, '@') + 1) || !set_timeouts(smtp) ||
	    !smtp_set_eventcb(smtp, on_event, session) || !smtp_set_monitorcb(smtp, on_bytes, session, 0))
		return false;
	if (session->relay->tls != NULL && (!smtp_starttls_enable(smtp, Starttls_REQUIRED) ||
					    !smtp_starttls_set_ctx(smtp, smtp_tls_context(session->relay->tls))))
		return false;
	if (login != NULL &&
	    (!auth_set_mechanism_flags(login, AUTH_PLUGIN_PLAIN, 0) ||
	     !auth_set_interact_cb(login, on_login, (void *)session->identity) || !smtp_auth_set_context(smtp, login)))
		return false;
	add_next(session);
	return session->added == 1;
}

/* The lowest descriptor that is free. */
static int lowest_free_fd(void)
{
	int fd = dup(STDERR_FILENO);

	if (fd >= 0)
		close(fd);
	return fd >= 0 ? fd : 3;
}

static void run(struct smtp_connection *session)
{
	if (session->relay->tls != NULL)
		smtp_tls_begin(session->relay->tls);
	session->lowest_fd = lowest_free_fd();
	is_connected = 0;
	live_socket = -1;
	set_timer(CONNECT_MS, CONNECT_MS);
	(void)smtp_start_session(session->smtp);
	set_timer(0, 0);
	is_connected = 0;
	live_socket = -1;
}

/* Why the relay could not be used, if no event has said so. A login that was refused says more than what followed. */
static void find_reason(struct smtp_connection *session)
{
	const char *failure = session->relay->tls != NULL ? smtp_tls_failure(session->relay->tls) : "";
	char text[SMTP_REPLY_BYTES] = "";
	int error = smtp_errno();

	if (session->heard.code != 0 && session->reason.code == 0 && session->reason.text[0] != '\0')
		session->is_our_fault = true;
	else if (session->heard.code != 0) {
		session->reason = session->heard;
		session->is_our_fault = session->is_logging_in || session->heard.code >= 500;
	} else if (session->reason.text[0] != '\0') {
		session->is_our_fault = session->is_our_fault || session->reason.code == 0;
	} else if (failure[0] != '\0') {
		(void)snprintf(text, sizeof(text), "TLS: %s", failure);
		smtp_reply_say(&session->reason, text);
		session->is_our_fault = true;
	} else if (!session->was_connected && error == -EINTR) {
		smtp_reply_say(&session->reason, "connect: timed out");
	} else if (session->was_connected) {
		smtp_reply_say(&session->reason, connection_lost);
	} else {
		const char *known = smtp_strerror(error, text, sizeof(text));

		smtp_reply_say(&session->reason, known != NULL && known[0] != '\0' ? known : "connect: failed");
	}
}

/* The mail that was under way when the session ended, if any: nobody can tell whether it was taken. */
static void find_lost(struct smtp_connection *session)
{
	struct smtp_mail *mail = session->answered == 0 ? NULL : &session->mails[session->answered - 1];

	if (mail == NULL || mail->outcome != SMTP_UNTRIED || session->reason.text[0] != '\0')
		return;
	if (mail->reply.text[0] == '\0' || smtp_reply_is_positive(&mail->reply))
		smtp_reply_say(&mail->reply, connection_lost);
	conclude(session, mail, SMTP_RETRY);
}

static void report(struct smtp_connection *session)
{
	const char *relay = session->relay->name;

	if (!session->accepted)
		log_event(session->is_our_fault ? LOG_ERROR : LOG_WARNING,
			  session->is_our_fault ? "smtp_misconfigured" : "smtp_relay_unusable",
			  LOG_TEXT("relay", relay), LOG_TEXT("reason", session->reason.text));
	else if (session->identity->user[0] != '\0' && !session->is_logged_in && !session->relay->login_warned) {
		session->relay->login_warned = true;
		log_event(LOG_WARNING, "smtp_login_not_accepted", LOG_TEXT("relay", relay));
	}
}

enum result smtp_session_run(struct smtp_connection *session)
{
	bool needs_login = session->identity->user[0] != '\0';
	auth_context_t login = needs_login ? auth_create_context() : NULL;
	enum result result = RESULT_FAULT;

	session->letter = calloc(session->count, sizeof(*session->letter));
	session->smtp = smtp_create_session();
	if (session->smtp == NULL || session->letter == NULL || (needs_login && login == NULL) ||
	    !set_up(session, login)) {
		smtp_reply_say(&session->reason, "out of memory");
		goto out;
	}
	run(session);
	if (session->accepted)
		find_lost(session);
	else
		find_reason(session);
	report(session);
	result = session->accepted ? RESULT_OK : RESULT_UNAVAILABLE;
out:
	if (session->smtp != NULL)
		smtp_destroy_session(session->smtp);
	if (login != NULL)
		auth_destroy_context(login);
	free(session->letter);
	return result;
}

enum result smtp_session_prepare(void)
{
	/* No SA_RESTART: the timer is there to interrupt connect(). */
	const struct sigaction action = {.sa_handler = on_alarm};

	/* libesmtp looks there for client certificates, and gives up on TLS if it may not look. */
	if (sigaction(SIGALRM, &action, NULL) != 0 || setenv("XDG_CONFIG_DIR", "/nonexistent", 1) != 0)
		return RESULT_FAULT;
	auth_client_init();
	return RESULT_OK;
}

void smtp_session_release(void)
{
	auth_client_exit();
}
