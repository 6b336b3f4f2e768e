/* fcgi.c: FastCGI requests through libfcgi, driven from the event loop: no connection holds a thread. */
#include "http/fcgi.h"

#include <errno.h>
#include <fcgiapp.h>
#include <malloc.h>
#include <sodium.h>
#include <stdalign.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/log.h"

#define SPARE_DESCRIPTORS 64 /* for everything but connections */
#define DESCRIPTORS_MAX 8192
#define STORM 128    /* open requests at once, 17 KB each in libfcgi, after which the heap is given back */
#define STALL_MS 500 /* how long a record may stay unfinished; nginx sends whole requests */

/* One connection of the web server. It carries one request at a time. */
struct fcgi_request {
	FCGX_Request fcgx;
	struct loop_watch watch;
	struct fcgi_server *server;
	struct fcgi_request *next;    /* in the list of free or retired ones */
	struct fcgi_request *sibling; /* in the list of all */
	enum result body_result;
	size_t body_length;
	bool busy; /* its request is not answered yet */
	bool keep; /* the web server asked to keep the connection */
	bool gone; /* the web server left while the request was open */
	alignas(max_align_t) unsigned char data[];
};

struct fcgi_server {
	struct loop *loop;
	struct loop_watch listener; /* not under watch while connections_max are open */
	int listener_fd;
	size_t connections_max;
	size_t data_bytes;
	fcgi_handler *handler;
	void *context;
	struct fcgi_request *all;
	struct fcgi_request *free;    /* ready for use */
	struct fcgi_request *retired; /* ended in this round: events for them may still be waiting */
	size_t connections;
	size_t open;
	size_t most_open;             /* since the heap was last given back */
	char body[FCGI_BODY_MAX + 2]; /* one more than the limit, and a NUL */
};

/* --- A request --- */

static void retire(struct fcgi_request *request)
{
	struct fcgi_server *server = request->server;

	request->watch.fd = -1;
	request->next = server->retired;
	server->retired = request;
	server->connections--;
}

/* CONTENT_LENGTH by the letter: digits only, no sign, no space. RESULT_LIMITED if over the limit. */
static enum result read_content_length(const char *text, size_t *length)
{
	size_t value = 0;

	if (text[0] == '\0') {
		*length = 0;
		return RESULT_OK;
	}
	for (const char *digit = text; *digit != '\0'; digit++) {
		if (*digit < '0' || *digit > '9')
			return RESULT_INVALID;
		if (value <= FCGI_BODY_MAX)
			value = value * 10 + (size_t)(*digit - '0');
	}
	if (value > FCGI_BODY_MAX)
		return RESULT_LIMITED;
	*length = value;
	return RESULT_OK;
}

/* Reads the body to its end. Unread bytes would be taken for records of the next request, so after any other outcome
   than RESULT_OK the connection is closed. */
static enum result read_body(struct fcgi_request *request)
{
	struct fcgi_server *server = request->server;
	size_t expected = 0;
	enum result result = read_content_length(fcgi_parameter(request, "CONTENT_LENGTH"), &expected);
	int got;

	request->body_length = 0;
	if (result != RESULT_OK)
		return result;
	got = FCGX_GetStr(server->body, (int)expected + 1, request->fcgx.in);
	request->body_length = got > 0 ? (size_t)got : 0;
	if (request->body_length != expected || !FCGX_HasSeenEOF(request->fcgx.in) ||
	    FCGX_GetError(request->fcgx.in) != 0)
		return RESULT_INVALID;
	server->body[expected] = '\0';
	return RESULT_OK;
}

/* libfcgi on a descriptor that we have accepted: keepConnection must be set or FCGX_Accept_r closes it; detached makes
   closing plain, without waiting for the peer. On failure libfcgi has closed the descriptor. */
static bool begin(struct fcgi_request *request)
{
	FCGX_InitRequest(&request->fcgx, -1, FCGI_FAIL_ACCEPT_ON_INTR);
	request->fcgx.ipcFd = request->watch.fd;
	request->fcgx.keepConnection = 1;
	request->fcgx.detached = 1;
	return FCGX_Accept_r(&request->fcgx) == 0;
}

static void on_readable(void *context, bool readable, bool writable)
{
	struct fcgi_request *request = context;
	struct fcgi_server *server = request->server;

	(void)readable;
	(void)writable;
	if (request->busy) {
		/* Nothing may come now but the web server's leaving; the connection ends with the answer. */
		request->gone = true;
		loop_remove(server->loop, &request->watch);
		return;
	}
	if (!begin(request)) {
		retire(request);
		return;
	}
	request->busy = true;
	request->gone = false;
	request->keep = request->fcgx.keepConnection != 0;
	server->open++;
	if (server->open > server->most_open)
		server->most_open = server->open;
	request->body_result = read_body(request);
	server->handler(server->context, request);
	sodium_memzero(server->body, request->body_length);
}

const char *fcgi_parameter(struct fcgi_request *request, const char *name)
{
	const char *value = FCGX_GetParam(name, request->fcgx.envp);

	return value != NULL ? value : "";
}

enum result fcgi_body(struct fcgi_request *request, const char **body, size_t *length)
{
	if (request->body_result != RESULT_OK)
		return request->body_result;
	*body = request->server->body;
	*length = request->body_length;
	return RESULT_OK;
}

void *fcgi_data(struct fcgi_request *request)
{
	return request->data;
}

struct fcgi_request *fcgi_of_data(void *data)
{
	return (struct fcgi_request *)((char *)data - offsetof(struct fcgi_request, data));
}

void fcgi_answer(struct fcgi_request *request, const char *answer, size_t length)
{
	int fd = request->watch.fd;

	FCGX_PutStr(answer, (int)length, request->fcgx.out);
	request->fcgx.keepConnection = request->keep && !request->gone && request->body_result == RESULT_OK;
	FCGX_Finish_r(&request->fcgx);
	request->busy = false;
	request->server->open--;
	sodium_memzero(request->data, request->server->data_bytes);
	if (request->fcgx.ipcFd < 0 || fd < 0)
		retire(request);
}

/* --- Connections --- */

static struct fcgi_request *new_request(struct fcgi_server *server)
{
	struct fcgi_request *request = server->free;

	if (request != NULL) {
		server->free = request->next;
		return request;
	}
	request = calloc(1, sizeof(*request) + server->data_bytes);
	if (request != NULL) {
		request->sibling = server->all;
		server->all = request;
		request->server = server;
		request->watch = (struct loop_watch){.fd = -1, .handler = on_readable, .context = request};
	}
	return request;
}

/* libfcgi reads and writes without regard to the loop: a peer that stalls within a record is dropped. */
static bool set_patience(int fd)
{
	struct timeval patience = {.tv_usec = STALL_MS * 1000};

	return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0 &&
	       setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) == 0;
}

static void take_connection(struct fcgi_server *server, int fd)
{
	struct fcgi_request *request = new_request(server);

	if (request == NULL || !set_patience(fd)) {
		log_event(LOG_ERROR, "connection_refused", LOG_NUMBER("errno", errno));
		close(fd);
		if (request != NULL) {
			request->next = server->free;
			server->free = request;
		}
		return;
	}
	server->connections++;
	request->watch.fd = fd;
	if (loop_add(server->loop, &request->watch) != RESULT_OK) {
		close(fd);
		retire(request);
	}
}

static void accept_all(struct fcgi_server *server)
{
	while (server->connections < server->connections_max) {
		int fd = accept4(server->listener_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			take_connection(server, fd);
		else if (errno != EINTR && errno != ECONNABORTED)
			return;
	}
	/* Full: who comes now waits in the backlog, without waking us. */
	loop_remove(server->loop, &server->listener);
}

static void on_listener(void *context, bool readable, bool writable)
{
	(void)readable;
	(void)writable;
	accept_all(context);
}

void fcgi_tidy(struct fcgi_server *server)
{
	while (server->retired != NULL) {
		struct fcgi_request *request = server->retired;

		server->retired = request->next;
		request->next = server->free;
		server->free = request;
	}
	if (server->open == 0 && server->most_open >= STORM) {
		(void)malloc_trim(0);
		server->most_open = 0;
	}
	if (server->listener.fd < 0 && server->listener_fd >= 0 && server->connections < server->connections_max) {
		server->listener.fd = server->listener_fd;
		if (loop_add(server->loop, &server->listener) != RESULT_OK)
			server->listener.fd = -1;
	}
}

/* --- The server --- */

/* As many connections as descriptors allow, so that accept(2) cannot fail for want of one. */
static size_t connections_max(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return SPARE_DESCRIPTORS;
	limit.rlim_cur = limit.rlim_max < DESCRIPTORS_MAX ? limit.rlim_max : DESCRIPTORS_MAX;
	setrlimit(RLIMIT_NOFILE, &limit);
	getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur > 2 * SPARE_DESCRIPTORS ? limit.rlim_cur - SPARE_DESCRIPTORS : SPARE_DESCRIPTORS;
}

struct fcgi_server *fcgi_new(struct loop *loop, int listener, size_t data_bytes, fcgi_handler *handler, void *context)
{
	struct fcgi_server *server = calloc(1, sizeof(*server));

	if (server == NULL)
		return NULL;
	server->loop = loop;
	server->listener = (struct loop_watch){.fd = listener, .handler = on_listener, .context = server};
	server->listener_fd = listener;
	server->connections_max = connections_max();
	server->data_bytes = data_bytes;
	server->handler = handler;
	server->context = context;
	if (FCGX_Init() != 0 || loop_add(loop, &server->listener) != RESULT_OK) {
		free(server);
		return NULL;
	}
	return server;
}

void fcgi_stop_accepting(struct fcgi_server *server)
{
	if (server->listener_fd < 0)
		return;
	accept_all(server);
	loop_remove(server->loop, &server->listener);
	close(server->listener_fd);
	server->listener_fd = -1;
}

void fcgi_free(struct fcgi_server *server)
{
	if (server == NULL)
		return;
	while (server->all != NULL) {
		struct fcgi_request *request = server->all;

		server->all = request->sibling;
		if (request->watch.fd >= 0)
			close(request->watch.fd);
		free(request);
	}
	free(server);
}

size_t fcgi_connections(const struct fcgi_server *server)
{
	return server->connections;
}

size_t fcgi_requests_open(const struct fcgi_server *server)
{
	return server->open;
}
