/* mail.c: delivers mails to a relay by SMTP, several over one connection. The only file that knows libesmtp and
   OpenSSL.

   libesmtp runs a whole session in one call and leaves much to its caller, which explains the shape of this file:
   - Its return value says nothing of delivery; what became of a mail is noted in its events, as they happen.
   - The next mail is added only when the recipient of the one before was accepted, so that a session can end early,
     and that commands stay in step with answers also where BDAT is pipelined.
   - connect() has no timeout, and the others are per read: an interval timer interrupts the former and cuts the
     connection at the deadline.
   - It neither checks what was sent in the clear behind the answer to STARTTLS, nor tells whether a login worked: the
     monitor callback watches for both. */
#include "mail.h"

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
/* after auth-client.h: it declares some functions only then */
#include <libesmtp.h>

#include "log.h"
#include "relay.h"
#include "secret.h"
#include "tls.h"

#define CONNECT_MS 5000L
#define COMMAND_MS 10000L
#define DATA_MS 30000L
#define QUIT_MS 2000L
#define PASSWORD_BYTES 1024U

struct mail {
	struct relays relays;
	const char *user; /* "": no login */
	char password[PASSWORD_BYTES];
	char sender[320];
};

/* One mail within a session: what libesmtp's message callback gets. */
struct letter {
	struct session *session;
	size_t index;
	bool given; /* the text was handed over; the next call is its end */
};

/* One connection to one relay. Jobs are numbered from 0 within it. */
struct session {
	struct mail *mail;
	struct relay *relay;
	struct mail_job *jobs;
	size_t count;
	const struct mail_source *source;
	size_t first; /* the source's number of jobs[0] */
	uint64_t deadline_ms;
	uint64_t last_start_ms; /* no mail is begun after this */
	smtp_session_t smtp;
	struct letter *letter;
	size_t added;    /* mails given to libesmtp */
	size_t answered; /* mails whose MAIL was answered; the last of them is under way */
	int lowest_fd;
	bool was_connected;
	bool accepted;       /* a MAIL was answered with 2xx: the relay can be used */
	bool is_our_fault;   /* TLS, login or configuration, not the relay's mood */
	bool text_ended;     /* the text of the mail under way was read to its end */
	bool awaits_tls;     /* STARTTLS was sent */
	bool was_injected;   /* plaintext followed the answer to STARTTLS */
	bool is_logging_in;  /* AUTH was sent */
	bool is_logged_in;   /* and answered with 235 */
	bool has_begun;      /* the first MAIL was sent */
	struct reply reason; /* why the relay cannot be used; text "" if not known yet */
	struct reply heard;  /* the last 4xx or 5xx before the first MAIL */
};

/* The session under way, for callbacks without a context of ours; there is one thread. */
static struct session *live;

/* For the timer: the connection to cut (-1: not found), and whether there is one. */
static volatile sig_atomic_t live_socket = -1;
static volatile sig_atomic_t is_connected;

uint64_t mail_clock_ms(void)
{
	struct timespec now = {0};

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int64_t wall_clock_ms(void)
{
	struct timespec now = {0};

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- The timer --- */

/* While connecting, connect() returns with EINTR and libesmtp goes on to the next address. Later the connection is cut.
   If it could not be found, the process ends: its lease must not be overstepped. */
static void on_alarm(int number)
{
	int saved = errno;

	(void)number;
	if (is_connected && live_socket >= 0)
		(void)shutdown(live_socket, SHUT_RDWR);
	else if (is_connected)
		_exit(1);
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

static void status_to_reply(struct reply *reply, const smtp_status_t *status)
{
	int enhanced[3] = {status->enh_class, status->enh_subject, status->enh_detail};

	reply_set(reply, status->code, enhanced, status->text != NULL ? status->text : "");
}

static void conclude(struct session *session, struct mail_job *job, enum mail_outcome outcome)
{
	job->outcome = outcome;
	job->relay = session->relay->name;
	job->finished_ms = wall_clock_ms();
}

/* libesmtp's reader: rewind (length NULL), the text, its end. errno decides whether the end is a failure. */
static const char *on_read(void **unused, int *length, void *context)
{
	struct letter *letter = context;
	struct session *session = letter->session;
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
		reply_say(&session->jobs[letter->index].reply, "the mail could not be made");
		errno = EIO; /* makes libesmtp drop the connection, the only way to take back DATA */
		return NULL;
	}
	*length = (int)size;
	errno = 0;
	return text;
}

/* Gives libesmtp one more mail, if there is one and time for it. */
static void add_next(struct session *session)
{
	struct letter *letter = &session->letter[session->added];
	smtp_message_t message;

	if (session->added == session->count)
		return;
	if (session->added > 0 &&
	    (mail_clock_ms() >= session->last_start_ms || !session->source->goes_on(session->source->context)))
		return;
	*letter = (struct letter){.session = session, .index = session->added};
	message = smtp_add_message(session->smtp);
	if (message == NULL || !smtp_set_messagecb(message, on_read, letter) ||
	    !smtp_set_reverse_path(message, session->mail->sender) ||
	    smtp_add_recipient(message, session->jobs[session->added].recipient) == NULL)
		return; /* out of memory; a message without a recipient is passed over */
	session->added++;
}

/* --- Events, in the order in which a session has them --- */

/* The connection's descriptor: libesmtp does not tell it, but it is one of the lowest that were free, and connected. */
static int find_socket(int lowest, int port)
{
	for (int fd = lowest; fd < lowest + 16; fd++) {
		struct sockaddr_in6 peer = {.sin6_family = AF_UNSPEC};
		socklen_t length = sizeof peer;

		/* The port is at the same place in both families. */
		if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 &&
		    (peer.sin6_family == AF_INET || peer.sin6_family == AF_INET6) && ntohs(peer.sin6_port) == port)
			return fd;
	}
	return -1;
}

static void on_connect(struct session *session)
{
	uint64_t now = mail_clock_ms();
	int on = 1;

	session->was_connected = true;
	live_socket = find_socket(session->lowest_fd, session->relay->port);
	is_connected = 1;
	set_timer(now < session->deadline_ms ? (long)(session->deadline_ms - now) : 1, 1000);
	/* A mail is several small writes: Nagle's algorithm would hold back the last one for 40 ms. */
	if (live_socket >= 0)
		(void)setsockopt(live_socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void on_mail_status(struct session *session, smtp_message_t message)
{
	struct reply reply;

	session->answered++;
	session->text_ended = false;
	status_to_reply(&reply, smtp_reverse_path_status(message));
	if (reply_is_positive(&reply)) {
		session->accepted = true;
	} else {
		session->reason = reply;
		session->is_our_fault = reply.code >= 500;
	}
}

static void on_recipient_status(struct session *session, smtp_recipient_t recipient)
{
	struct mail_job *job = &session->jobs[session->answered - 1];
	bool can_judge = session->mail->user[0] == '\0' || session->is_logged_in;

	status_to_reply(&job->reply, smtp_recipient_status(recipient));
	if (reply_is_positive(&job->reply))
		add_next(session);
	else if (can_judge && reply_refuses_recipient(&job->reply))
		conclude(session, job, MAIL_FAILED);
	else
		conclude(session, job, MAIL_RETRY);
}

static void on_message_status(struct session *session, smtp_message_t message)
{
	struct mail_job *job = &session->jobs[session->answered - 1];
	const smtp_status_t *status = smtp_message_transfer_status(message);

	if (job->outcome == MAIL_UNTRIED) {
		if (status->code != 0)
			status_to_reply(&job->reply, status);
		conclude(session, job, session->text_ended && reply_is_positive(&job->reply) ? MAIL_SENT : MAIL_RETRY);
	}
	/* What follows the last mail is QUIT; nobody should wait long for its answer. */
	if (session->answered == session->added)
		set_timer(QUIT_MS, 1000);
}

static void on_event(smtp_session_t smtp, int event, void *context, ...)
{
	struct session *session = context;
	va_list values;

	(void)smtp;
	va_start(values, context);
	switch (event) {
	case SMTP_EV_CONNECT:
		on_connect(session);
		break;
	case SMTP_EV_EXTNA_STARTTLS:
		reply_say(&session->reason, "TLS: the relay does not offer STARTTLS");
		break;
	case SMTP_EV_WRONG_PEER_CERTIFICATE: {
		/* It compares with the canonical name of DNS; OpenSSL has compared with ours. */
		int *is_ok = va_arg(values, int *);

		(void)va_arg(values, char *);
		*is_ok = SSL_get_verify_result(va_arg(values, SSL *)) == X509_V_OK;
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

static void on_bytes_sent(struct session *session, const char *bytes, int length)
{
	if (starts_with(bytes, length, "STARTTLS"))
		session->awaits_tls = true;
	else if (starts_with(bytes, length, "AUTH "))
		session->is_logging_in = true;
	else if (starts_with(bytes, length, "MAIL "))
		session->has_begun = true;
}

/* Keeps a refusal that comes before the first MAIL: libesmtp does not hand it out. */
static void on_refusal(struct session *session, const char *bytes, int length)
{
	char text[REPLY_BYTES];
	static const int no_triplet[3];

	if (length < 4 || bytes[1] < '0' || bytes[1] > '9' || bytes[2] < '0' || bytes[2] > '9')
		return;
	(void)snprintf(text, sizeof text, "%.*s", length - 4, bytes + 4);
	reply_set(&session->heard, (bytes[0] - '0') * 100 + (bytes[1] - '0') * 10 + bytes[2] - '0', no_triplet, text);
}

static void on_bytes_received(struct session *session, const char *bytes, int length)
{
	if (session->awaits_tls) {
		const char *end = memchr(bytes, '\n', (size_t)length);

		session->was_injected = end != NULL && end + 1 < bytes + length;
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
		on_bytes_received(context, bytes, length);
	else if (direction == 1)
		on_bytes_sent(context, bytes, length);
}

/* The user and the password, as a mechanism asks for them. */
static int on_login(auth_client_request_t request, char **result, int fields, void *context)
{
	struct mail *mail = context;

	for (int i = 0; i < fields; i++) {
		if ((request[i].flags & AUTH_USER) != 0)
			result[i] = (char *)mail->user;
		else if ((request[i].flags & AUTH_PASS) != 0)
			result[i] = mail->password;
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

static bool set_up(struct session *session, auth_context_t login)
{
	struct mail *mail = session->mail;
	smtp_session_t smtp = session->smtp;

	if (!smtp_set_server(smtp, session->relay->name) || !smtp_set_hostname(smtp, strrchr(mail->sender, '@') + 1) ||
	    !set_timeouts(smtp) || !smtp_set_eventcb(smtp, on_event, session) ||
	    !smtp_set_monitorcb(smtp, on_bytes, session, 0))
		return false;
	if (session->relay->tls != NULL &&
	    (!smtp_starttls_enable(smtp, Starttls_REQUIRED) || !smtp_starttls_set_ctx(smtp, session->relay->tls)))
		return false;
	if (login != NULL && (!auth_set_mechanism_flags(login, AUTH_PLUGIN_PLAIN, 0) ||
			      !auth_set_interact_cb(login, on_login, mail) || !smtp_auth_set_context(smtp, login)))
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

static void run(struct session *session)
{
	ERR_clear_error();
	session->lowest_fd = lowest_free_fd();
	live = session;
	is_connected = 0;
	live_socket = -1;
	set_timer(CONNECT_MS, CONNECT_MS);
	(void)smtp_start_session(session->smtp);
	set_timer(0, 0);
	is_connected = 0;
	live_socket = -1;
	live = NULL;
}

/* Why the relay could not be used, if no event has said so. A login that was refused says more than what followed. */
static void find_reason(struct session *session)
{
	char text[REPLY_BYTES] = "";
	int error = smtp_errno();

	if (session->heard.code != 0 && session->reason.code == 0 && session->reason.text[0] != '\0')
		session->is_our_fault = true;
	else if (session->heard.code != 0) {
		session->reason = session->heard;
		session->is_our_fault = session->is_logging_in || session->heard.code >= 500;
	} else if (session->reason.text[0] != '\0') {
		session->is_our_fault = session->is_our_fault || session->reason.code == 0;
	} else if (ERR_peek_last_error() != 0) {
		(void)snprintf(text, sizeof text, "TLS: %s", ERR_reason_error_string(ERR_peek_last_error()));
		reply_say(&session->reason, text);
		session->is_our_fault = true;
	} else if (!session->was_connected && error == -EINTR) {
		reply_say(&session->reason, "connect: timed out");
	} else if (session->was_connected) {
		reply_say(&session->reason, connection_lost);
	} else {
		const char *known = smtp_strerror(error, text, sizeof text);

		reply_say(&session->reason, known != NULL && known[0] != '\0' ? known : "connect: failed");
	}
}

/* The mail that was under way when the session ended, if any: nobody can tell whether it was taken. */
static void find_lost(struct session *session)
{
	struct mail_job *job = session->answered == 0 ? NULL : &session->jobs[session->answered - 1];

	if (job == NULL || job->outcome != MAIL_UNTRIED || session->reason.text[0] != '\0')
		return;
	if (job->reply.text[0] == '\0' || reply_is_positive(&job->reply))
		reply_say(&job->reply, connection_lost);
	conclude(session, job, MAIL_RETRY);
}

static void report(struct session *session)
{
	const char *relay = session->relay->name;

	if (!session->accepted)
		log_event(session->is_our_fault ? LOG_ERROR : LOG_WARNING,
			  session->is_our_fault ? "smtp_misconfigured" : "smtp_relay_unusable",
			  LOG_TEXT("relay", relay), LOG_TEXT("reason", session->reason.text));
	else if (session->mail->user[0] != '\0' && !session->is_logged_in && !session->relay->login_warned) {
		session->relay->login_warned = true;
		log_event(LOG_WARNING, "smtp_login_not_accepted", LOG_TEXT("relay", relay));
	}
}

/* Runs one session; what it did is in session and its jobs. */
static enum result run_session(struct session *session)
{
	bool needs_login = session->mail->user[0] != '\0';
	auth_context_t login = needs_login ? auth_create_context() : NULL;
	enum result result = RESULT_FAULT;

	session->letter = calloc(session->count, sizeof *session->letter);
	session->smtp = smtp_create_session();
	if (session->smtp == NULL || session->letter == NULL || (needs_login && login == NULL) ||
	    !set_up(session, login)) {
		reply_say(&session->reason, "out of memory");
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
	session->letter = NULL;
	session->smtp = NULL;
	return result;
}

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
	uint64_t start = mail_clock_ms();
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
	while (done < count && (relay = choose_relay(mail, tried, mail_clock_ms())) != NULL) {
		struct session session = {.mail = mail,
					  .relay = relay,
					  .jobs = jobs + done,
					  .count = count - done,
					  .source = source,
					  .first = done,
					  .deadline_ms = deadline_ms,
					  .last_start_ms = start + budget / 2};

		if (mail_clock_ms() > session.last_start_ms || (done > 0 && !source->goes_on(source->context)))
			break;
		if (run_session(&session) == RESULT_OK) {
			relay->retry_at_ms = 0;
			was_usable = true;
		} else {
			relay->retry_at_ms = mail_clock_ms() + COOL_DOWN_MS;
			tried[relay - mail->relay] = true;
			reason = session.reason;
		}
		done += count_done(jobs + done, count - done);
	}
	if (was_usable)
		return RESULT_OK;
	for (size_t i = 0; i < count; i++) {
		jobs[i].outcome = MAIL_RETRY;
		jobs[i].reply = reason;
		jobs[i].finished_ms = wall_clock_ms();
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
	mail->user = config->smtp_user;
	if (config->smtp_user[0] == '\0')
		return RESULT_OK;
	if (config->smtp_password_file[0] == '\0')
		return refuse("SMTP_PASSWORD_FILE", "SMTP_USER is set, so a file with its password must be");
	if (secret_read_file(config->smtp_password_file, mail->password, sizeof mail->password) != RESULT_OK)
		return refuse("SMTP_PASSWORD_FILE", "it cannot be read; see the event before this one");
	return RESULT_OK;
}

enum result mail_new(struct mail **mail, const struct config *config, const char *sender)
{
	/* No SA_RESTART: the timer is there to interrupt connect(). */
	struct sigaction action = {.sa_handler = on_alarm};
	struct mail *made = calloc(1, sizeof *made);
	enum result result = RESULT_OK;

	if (made == NULL || sigaction(SIGALRM, &action, NULL) != 0 ||
	    /* libesmtp looks there for client certificates and gives up on TLS if it may not look. */
	    setenv("XDG_CONFIG_DIR", "/nonexistent", 1) != 0 || strlen(sender) >= sizeof made->sender)
		result = RESULT_FAULT;
	if (result == RESULT_OK) {
		memcpy(made->sender, sender, strlen(sender) + 1);
		auth_client_init();
		result = add_relays(made, config);
	}
	if (result == RESULT_OK)
		result = read_password(made, config);
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
	for (size_t i = 0; i < mail->relays; i++)
		SSL_CTX_free(mail->relay[i].tls);
	explicit_bzero(mail, sizeof *mail);
	free(mail);
	auth_client_exit();
}
