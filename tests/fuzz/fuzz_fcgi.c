/* fuzz_fcgi.c: A16: whatever comes on a FastCGI connection, each request that is handed on is answered once, its body
 * is as long as it says, and the connection is given up in the end. libfcgi is instrumented as well. The input: how the
 * handler answers, then the connection's bytes. */
#include <setjmp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/loop.h"
#include "fuzz.h"
#include "http/fcgi.h"

static struct loop *loop;
static struct fcgi_server *server;
static int listener;
static struct sockaddr_un address;
static socklen_t address_length;
static struct fcgi_request *waiting;
static bool answers_later;
static jmp_buf gave_up;

/* A failed assertion of libfcgi ends a responder, and a supervisor starts it again: here, a new server. */
int fuzz_library_failed(void);
int fuzz_library_failed(void)
{
	longjmp(gave_up, 1);
}

/* What a name in a record claims to be long, nobody waits for. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "allocator_may_return_null=1:max_allocation_size_mb=64";
}

static void answer(struct fcgi_request *request)
{
	static const char text[] = "Status: 200 OK\r\n\r\n{}\n";
	fcgi_answer(request, text, sizeof(text) - 1);
}

static void on_request(void *context, struct fcgi_request *request)
{
	const char *body = NULL;
	size_t length = 0;
	(void)context;
	FUZZ_ASSERT(waiting == NULL); /* one at a time on a connection */
	if (fcgi_body(request, &body, &length) == RESULT_OK) {
		const char *text = fcgi_parameter(request, "CONTENT_LENGTH");
		FUZZ_ASSERT(strtoul(text, NULL, 10) == length && length <= FCGI_BODY_MAX && body[length] == '\0');
	}
	FUZZ_ASSERT(fcgi_parameter(request, "NO_SUCH_PARAMETER_AT_ALL") != NULL);
	if (answers_later)
		waiting = request;
	else
		answer(request);
}

static void start(void)
{
	address = (struct sockaddr_un){.sun_family = AF_UNIX};
	address_length = sizeof(sa_family_t); /* the kernel chooses an abstract name */
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	FUZZ_ASSERT(bind(listener, (struct sockaddr *)&address, address_length) == 0 && listen(listener, 8) == 0);
	address_length = sizeof(address);
	FUZZ_ASSERT(getsockname(listener, (struct sockaddr *)&address, &address_length) == 0);
	loop = loop_new();
	server = fcgi_new(loop, listener, 64, on_request, NULL);
	FUZZ_ASSERT(loop != NULL && server != NULL);
}

static void give_up(void)
{
	fcgi_free(server);
	loop_free(loop);
	(void)close(listener);
	server = NULL;
}

/* Rounds until nothing is left to do. */
static void run(void)
{
	for (int idle = 0; idle < 2;) {
		idle = loop_round(loop, 0) == 0 ? idle + 1 : 0;
		if (waiting != NULL) {
			struct fcgi_request *request = waiting;
			waiting = NULL;
			answer(request);
			idle = 0;
		}
		fcgi_tidy(server);
	}
}

/* A record that is of no request. libfcgi's answer to one that names something twice runs over a buffer; nginx sends
 * none, and nobody else reaches the socket. */
static bool has_management_record(struct fuzz_input input)
{
	while (input.left >= 8) {
		const uint8_t *header = input.at;
		size_t length = 8 + header[4] * 256U + header[5] + header[6];
		if (header[2] == 0 && header[3] == 0)
			return true;
		length = length < input.left ? length : input.left;
		input.at += length;
		input.left -= length;
	}
	return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	if (server == NULL)
		start();
	answers_later = fuzz_byte(&input) % 2 == 1;
	if (has_management_record(input))
		return 0;
	int client = socket(AF_UNIX, SOCK_STREAM, 0);
	waiting = NULL;
	FUZZ_ASSERT(connect(client, (struct sockaddr *)&address, address_length) == 0);
	FUZZ_ASSERT(send(client, input.at, input.left, 0) == (ssize_t)input.left);
	(void)shutdown(client, SHUT_WR);
	if (setjmp(gave_up) == 0) {
		run();
		FUZZ_ASSERT(fcgi_requests_open(server) == 0 && fcgi_connections(server) == 0);
	} else {
		give_up();
	}
	(void)close(client);
	return 0;
}
