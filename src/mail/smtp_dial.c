/* smtp_dial.c: a connection to a relay, made and proven before libesmtp, which speaks in the clear, gets an end of it.

   libesmtp has no implicit TLS and no deadline for connect(), names no IPv6 address, sends no SNI, takes DNS's name for
   the host's and stalls on TLS 1.3. So it is given a socket that is ready: the relay's own if there is no TLS, else one
   of a pair, and a thread carries bytes between the other one and the TLS connection. */
#include "mail/smtp_dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "mail/smtp_timer.h"

#define CONNECT_MS 5000U
#define ADDRESSES_MAX 16U
#define REPLY_LINES_MAX 64
#define GOODBYE_MS 100        /* for the last bytes of a session */
#define DESCRIPTORS_BEHIND 16 /* the one of the library is the next one that was free */

/* --- Failures --- */

static enum result refuse(struct smtp_dial *dial, const char *step, const char *words, bool is_our_fault)
{
	char text[SMTP_REPLY_BYTES];

	(void)snprintf(text, sizeof(text), "%s: %s", step, words);
	smtp_reply_say(&dial->reason, text);
	dial->step = step;
	dial->is_our_fault = is_our_fault;
	return RESULT_UNAVAILABLE;
}

static enum result refuse_as_told(struct smtp_dial *dial, const char *step, const struct smtp_reply *reply)
{
	dial->reason = *reply;
	dial->step = step;
	dial->is_our_fault = reply->code >= 500;
	return RESULT_UNAVAILABLE;
}

static uint64_t earlier(uint64_t one_ms, uint64_t other_ms)
{
	return one_ms < other_ms ? one_ms : other_ms;
}

/* --- Connecting --- */

/* Waits until the socket is ready for that. false: not by then. */
static bool wait_ready(int socket, short events, uint64_t until_ms)
{
	for (uint64_t now_ms; (now_ms = clock_boot_ms()) < until_ms;) {
		struct pollfd ready = {.fd = socket, .events = events};
		int found = poll(&ready, 1, (int)(until_ms - now_ms));

		if (found > 0)
			return true;
		if (found < 0 && errno != EINTR)
			return false;
	}
	errno = ETIMEDOUT;
	return false;
}

/* Connects to one address. errno says why not. */
static bool connect_to(struct smtp_dial *dial, const struct addrinfo *address, uint64_t until_ms)
{
	int error = 0;
	int on = 1;
	socklen_t length = sizeof(error);

	dial->socket = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (dial->socket < 0)
		return false;
	smtp_timer_watch(dial->socket);
	/* A mail is several small writes: Nagle's algorithm would hold back the last one for 40 ms. */
	(void)setsockopt(dial->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(dial->socket, address->ai_addr, address->ai_addrlen) == 0)
		return true;
	if (errno != EINPROGRESS || !wait_ready(dial->socket, POLLOUT, until_ms))
		error = errno;
	else if (getsockopt(dial->socket, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0)
		return true;
	smtp_timer_watch(-1);
	close(dial->socket);
	dial->socket = -1;
	errno = error;
	return false;
}

/* Tries the addresses of a relay in turn, beginning with another one after each failure of a session. */
static enum result connect_any(struct smtp_dial *dial, struct smtp_relay *relay, uint64_t patience_ms,
			       uint64_t deadline_ms)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG | AI_NUMERICSERV};
	const struct addrinfo *list[ADDRESSES_MAX] = {NULL};
	struct addrinfo *found = NULL;
	int error = getaddrinfo(relay->host, relay->port, &hints, &found);
	size_t count = 0;

	if (error != 0)
		return refuse(dial, "name", gai_strerror(error), false);
	for (const struct addrinfo *at = found; at != NULL && count < ADDRESSES_MAX; at = at->ai_next)
		list[count++] = at;
	for (size_t i = 0; i < count && dial->socket < 0; i++) {
		uint64_t each_ms = earlier(CONNECT_MS, patience_ms);
		uint64_t until_ms = earlier(clock_boot_ms() + each_ms, deadline_ms);

		if (!connect_to(dial, list[(relay->failures + i) % count], until_ms))
			error = errno;
	}
	freeaddrinfo(found);
	if (dial->socket < 0)
		return refuse(dial, "connect", strerror(error), false);
	return RESULT_OK;
}

/* --- Before TLS --- */

/* The dialogue that leads to TLS. */
struct dialogue {
	int socket;
	uint64_t patience_ms;
	uint64_t deadline_ms;
	bool offers_tls; /* a line of the last reply was STARTTLS */
};

/* Byte by byte, so that nothing is taken of what comes behind it. */
static bool read_line(const struct dialogue *dialogue, uint64_t until_ms, char *line, size_t size)
{
	size_t length = 0;

	while (length < size - 1) {
		ssize_t got = recv(dialogue->socket, line + length, 1, 0);

		if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (got < 0 && !wait_ready(dialogue->socket, POLLIN, until_ms))
			return false;
		if (got > 0 && line[length++] == '\n')
			break;
	}
	line[length] = '\0';
	return true;
}

/* Keeps the first line of a reply. false: there is none in time, or it is none. */
static bool read_reply(struct dialogue *dialogue, struct smtp_reply *reply)
{
	static const int no_triplet[3];
	uint64_t until_ms = earlier(clock_boot_ms() + dialogue->patience_ms, dialogue->deadline_ms);
	char line[1024];

	dialogue->offers_tls = false;
	for (int lines = 0; lines < REPLY_LINES_MAX; lines++) {
		if (!read_line(dialogue, until_ms, line, sizeof(line)) || strspn(line, "0123456789") != 3)
			return false;
		if (lines == 0)
			smtp_reply_set(reply, (line[0] - '0') * 100 + (line[1] - '0') * 10 + line[2] - '0', no_triplet,
				       line + 3 + (line[3] == '-' || line[3] == ' '));
		if (strncasecmp(line + 3 + (line[3] != '\0'), "STARTTLS", strlen("STARTTLS")) == 0)
			dialogue->offers_tls = true;
		if (line[3] != '-')
			return true;
	}
	return false;
}

static bool say(const struct dialogue *dialogue, const char *line)
{
	return send(dialogue->socket, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line);
}

static enum result ask_for_tls(struct smtp_dial *dial, struct dialogue *dialogue, const char *helo)
{
	static const char lost[] = "connection lost, or no reply in time";
	struct smtp_reply reply;
	char hello[300];
	char byte;

	(void)snprintf(hello, sizeof(hello), "EHLO %s\r\n", helo);
	if (!read_reply(dialogue, &reply))
		return refuse(dial, "greeting", lost, false);
	if (!smtp_reply_is_positive(&reply))
		return refuse_as_told(dial, "greeting", &reply);
	if (!say(dialogue, hello) || !read_reply(dialogue, &reply))
		return refuse(dial, "EHLO", lost, false);
	/* A relay that does not know EHLO has no TLS; any other refusal speaks for itself. */
	if (!smtp_reply_is_positive(&reply) && reply.code != 500 && reply.code != 502)
		return refuse_as_told(dial, "EHLO", &reply);
	if (!dialogue->offers_tls) {
		(void)refuse(dial, "TLS", "the relay does not offer STARTTLS", true);
		dial->step = "STARTTLS";
		return RESULT_UNAVAILABLE;
	}
	if (!say(dialogue, "STARTTLS\r\n") || !read_reply(dialogue, &reply))
		return refuse(dial, "STARTTLS", lost, false);
	if (!smtp_reply_is_positive(&reply))
		return refuse_as_told(dial, "STARTTLS", &reply);
	/* It is the client who speaks first in TLS: what is here already was sent by somebody in between. */
	if (recv(dialogue->socket, &byte, 1, MSG_PEEK) > 0)
		return refuse(dial, "TLS", "plaintext was injected after STARTTLS", true);
	return RESULT_OK;
}

/* --- TLS --- */

static void *carry(void *context)
{
	struct smtp_dial *dial = context;

	smtp_tls_carry(dial->link, dial->local);
	return NULL;
}

/* The thread takes no signals: they are for the one that runs the session. */
static bool start_carrier(struct smtp_dial *dial)
{
	sigset_t all, before;
	int error;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&dial->carrier, NULL, carry, dial);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	dial->is_carried = error == 0;
	return dial->is_carried;
}

static enum result start_tls(struct smtp_dial *dial, struct smtp_relay *relay, uint64_t patience_ms,
			     uint64_t deadline_ms)
{
	/* The relay has greeted already, if it had to be asked for TLS: the library is to have its greeting, too. */
	const char *greeting = relay->is_implicit ? "" : "220 TLS\r\n";
	uint64_t until_ms = earlier(clock_boot_ms() + patience_ms, deadline_ms);
	const char *reason = "";
	int pair[2];

	dial->link = smtp_tls_begin(relay->tls, dial->socket, until_ms, &reason);
	if (dial->link == NULL)
		return refuse(dial, "TLS", reason, clock_boot_ms() < until_ms);
	smtp_tls_describe(dial->link, dial->proof);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
		return refuse(dial, "TLS", strerror(errno), false);
	dial->library = pair[0];
	dial->local = pair[1];
	if (send(dial->local, greeting, strlen(greeting), MSG_NOSIGNAL) != (ssize_t)strlen(greeting) ||
	    !start_carrier(dial))
		return refuse(dial, "TLS", "out of resources", false);
	return RESULT_OK;
}

/* --- All of it --- */

/* The library connects to a port of ours, so that it has a descriptor to put another one in its place. Nobody is
   accepted there: who else connects has nothing of it. */
static bool listen_for_library(struct smtp_dial *dial)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);

	dial->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (dial->library < 0 || dial->listener < 0 ||
	    bind(dial->listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(dial->listener, 1) != 0 ||
	    getsockname(dial->listener, (struct sockaddr *)&address, &length) != 0)
		return false;
	dial->port = address.sin_port;
	(void)snprintf(dial->name, sizeof(dial->name), "127.0.0.1:%d", ntohs(address.sin_port));
	return true;
}

enum result smtp_dial_open(struct smtp_dial *dial, struct smtp_relay *relay, const char *helo, uint64_t patience_ms,
			   uint64_t deadline_ms)
{
	struct dialogue dialogue = {.patience_ms = patience_ms, .deadline_ms = deadline_ms};
	enum result result;

	*dial = (struct smtp_dial){.socket = -1, .library = -1, .local = -1, .listener = -1};
	result = connect_any(dial, relay, patience_ms, deadline_ms);
	dialogue.socket = dial->socket;
	if (result == RESULT_OK && relay->tls != NULL && !relay->is_implicit)
		result = ask_for_tls(dial, &dialogue, helo);
	if (result == RESULT_OK && relay->tls != NULL)
		result = start_tls(dial, relay, patience_ms, deadline_ms);
	else if (result == RESULT_OK)
		dial->library = dup(dial->socket);
	if (result == RESULT_OK && !listen_for_library(dial))
		result = refuse(dial, "connect", "out of resources", false);
	return result;
}

static void close_listener(struct smtp_dial *dial)
{
	if (dial->listener >= 0)
		close(dial->listener);
	dial->listener = -1;
}

/* The library's descriptor is connected to the listener, which accepts nobody. */
enum result smtp_dial_give(struct smtp_dial *dial)
{
	enum result result = RESULT_FAULT;

	for (int fd = STDERR_FILENO + 1; fd < dial->listener + DESCRIPTORS_BEHIND; fd++) {
		struct sockaddr_in peer = {.sin_family = AF_UNSPEC};
		socklen_t length = sizeof(peer);

		if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sin_family == AF_INET &&
		    peer.sin_port == dial->port && peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK) &&
		    dup2(dial->library, fd) == fd) {
			result = RESULT_OK;
			break;
		}
	}
	close_listener(dial);
	return result;
}

void smtp_dial_close(struct smtp_dial *dial)
{
	struct timespec until;

	close_listener(dial);
	if (dial->library >= 0)
		close(dial->library);
	if (dial->is_carried) {
		(void)clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += GOODBYE_MS * 1000000L;
		until.tv_sec += until.tv_nsec / 1000000000L;
		until.tv_nsec %= 1000000000L;
		if (pthread_timedjoin_np(dial->carrier, NULL, &until) != 0) {
			(void)shutdown(dial->socket, SHUT_RDWR);
			(void)pthread_join(dial->carrier, NULL);
		}
	}
	if (dial->link != NULL)
		smtp_tls_end(dial->link);
	if (dial->local >= 0)
		close(dial->local);
	if (dial->socket >= 0)
		close(dial->socket);
}
