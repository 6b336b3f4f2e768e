/* responder.c: what both responders share: their routes, their answers, and their life from start to drain. */
#include "http/responder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/jsondoc.h"
#include "base/log.h"
#include "base/loop.h"
#include "http/fcgi.h"
#include "http/listener.h"
#include "http/metrics.h"

#define START_MS 2000

/* A stopping responder closes idle connections only after this: nginx leaves them within keepalive_time and
   keepalive_timeout (nginx/upstream.conf). */
#define DRAIN_MS 12000

/* Who had looked the path up before it was given away may still connect; a socket of the supervisor's stays open
 * anyway. */
#define LATE_MS 250

struct server {
	const struct responder *responder;
	const struct settings *settings;
	struct loop *loop;
	struct fcgi_server *fcgi;
	struct pump *pump;
	uint64_t accept_until_ms; /* 0: not draining */
	uint64_t drain_until_ms;  /* UINT64_MAX: not draining */
	struct metrics metrics;
	struct http_answer answer;
	const char *detail; /* of the refusal at hand; NULL: none */
	char json_detail[JSONDOC_REASON_BYTES + sizeof("The body: .")];
};

/* --- Answers --- */

/* Sends server->answer. */
static void send_answer(struct server *server, struct batch_item *item, enum http_outcome outcome)
{
	struct fcgi_request *request = fcgi_of_data(item);

	metrics_count_answer(&server->metrics, outcome);
	if (outcome == HTTP_INTERNAL || outcome == HTTP_UNAVAILABLE)
		log_event(outcome == HTTP_INTERNAL ? LOG_ERROR : LOG_DEBUG, "request_failed",
			  LOG_TEXT("request_id", fcgi_parameter(request, "REQUEST_ID")),
			  LOG_TEXT("error", http_outcome_slug(outcome)));
	fcgi_answer(request, server->answer.text, server->answer.length);
	explicit_bzero(server->answer.text, server->answer.length);
}

static void refuse(struct server *server, struct batch_item *item, enum http_outcome outcome)
{
	http_refuse(&server->answer, outcome, RESPONDER_RETRY_SECONDS, server->detail);
	send_answer(server, item, outcome);
}

static enum http_outcome outcome_of(enum result result)
{
	switch (result) {
	case RESULT_UNAVAILABLE:
	case RESULT_UNKNOWN:
		return HTTP_UNAVAILABLE;
	case RESULT_OK:
	case RESULT_INVALID:
	case RESULT_LIMITED:
	case RESULT_FAULT:
		return HTTP_INTERNAL;
	}
	return HTTP_INTERNAL;
}

static void on_item(void *context, struct batch_item *item, enum result result, size_t verdict)
{
	struct server *server = context;
	const struct responder *responder = server->responder;

	if (result != RESULT_OK)
		refuse(server, item, outcome_of(result));
	else
		send_answer(server, item, responder->answer(responder->work.context, item, verdict, &server->answer));
}

static void answer_health(struct server *server, struct batch_item *item, const char *database)
{
	char body[128];

	(void)snprintf(body, sizeof(body),
		       "{\"message\":\"Healthy.\",\"status\":\"ok\",\"program\":\"%s\",\"database\":\"%s\"}\n",
		       program_name(server->responder->program), database);
	(void)!http_content(&server->answer, "application/json; charset=utf-8", body);
	send_answer(server, item, HTTP_OK);
}

static void on_ping(void *context, struct batch_item *item, enum result result)
{
	if (result == RESULT_OK)
		answer_health(context, item, "ok");
	else
		refuse(context, item, HTTP_UNAVAILABLE);
}

/* --- Routes --- */

/* Reads the request and queues it; HTTP_OK if its answer will come. */
static enum http_outcome take(struct server *server, struct fcgi_request *fcgi, const struct json_t *json)
{
	const struct responder *responder = server->responder;
	struct batch_item *item = fcgi_data(fcgi);
	struct responder_request request = {.json = json,
					    .clock_ms = pump_clock_ms(server->pump),
					    .now_ms = loop_now_ms(server->loop),
					    .accept_language = fcgi_parameter(fcgi, "HTTP_ACCEPT_LANGUAGE")};
	enum http_outcome outcome = responder->read(responder->work.context, item, &request);

	server->detail = request.detail;
	if (outcome != HTTP_OK)
		return outcome;
	item->arrived_ms = request.now_ms;
	return pump_add(server->pump, item) == RESULT_OK ? HTTP_OK : HTTP_UNAVAILABLE;
}

static enum http_outcome on_route(struct server *server, struct fcgi_request *request)
{
	const char *encoding = fcgi_parameter(request, "HTTP_CONTENT_ENCODING");
	const char *body = NULL;
	size_t length = 0;
	struct json_t *json = NULL;
	char reason[JSONDOC_REASON_BYTES];
	enum result result = fcgi_body(request, &body, &length);
	enum http_outcome outcome;

	if (result != RESULT_OK)
		return result == RESULT_LIMITED ? HTTP_TOO_LARGE : HTTP_BAD_REQUEST;
	if (!http_is_json(fcgi_parameter(request, "CONTENT_TYPE")))
		return HTTP_UNSUPPORTED_TYPE;
	if (encoding[0] != '\0' && strcasecmp(encoding, "identity") != 0) {
		server->detail = "The body must not be compressed: Content-Encoding must be identity or absent.";
		return HTTP_UNSUPPORTED_TYPE;
	}
	if (jsondoc_parse(&json, body, length, reason) != RESULT_OK) {
		(void)snprintf(server->json_detail, sizeof(server->json_detail), "The body: %s.", reason);
		server->detail = server->json_detail;
		return HTTP_BAD_REQUEST;
	}
	outcome = take(server, request, json);
	jsondoc_free(json);
	return outcome;
}

static void on_health(struct server *server, struct fcgi_request *request)
{
	struct batch_item *item = fcgi_data(request);

	item->arrived_ms = loop_now_ms(server->loop);
	if (strcmp(fcgi_parameter(request, "QUERY_STRING"), "check=process") == 0)
		answer_health(server, item, "unchecked");
	else if (pump_ping(server->pump, item) != RESULT_OK)
		refuse(server, item, HTTP_UNAVAILABLE);
}

static void on_metrics(struct server *server, struct fcgi_request *request)
{
	char text[METRICS_TEXT_MAX];

	server->metrics.queue_length = pump_waiting(server->pump);
	server->metrics.connections = fcgi_connections(server->fcgi);
	server->metrics.database_up = pump_is_up(server->pump);
	metrics_write(&server->metrics, program_name(server->responder->program), text, sizeof(text));
	if (http_content(&server->answer, "text/plain; version=0.0.4; charset=utf-8", text) == RESULT_OK)
		send_answer(server, fcgi_data(request), HTTP_OK);
	else
		refuse(server, fcgi_data(request), HTTP_INTERNAL);
}

/* "/healthz" or "/healthz/validate": the suffix only names the program to the web server. */
static bool is_under(const char *path, const char *prefix)
{
	size_t length = strlen(prefix);

	return strncmp(path, prefix, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

static void refuse_method(struct server *server, struct fcgi_request *request, const char *allow)
{
	http_refuse_method(&server->answer, allow);
	send_answer(server, fcgi_data(request), HTTP_METHOD_NOT_ALLOWED);
}

static void on_request(void *context, struct fcgi_request *request)
{
	struct server *server = context;
	const char *path = fcgi_parameter(request, "DOCUMENT_URI");
	const char *method = fcgi_parameter(request, "REQUEST_METHOD");
	bool is_route = strcmp(path, server->responder->path) == 0;
	bool is_health = is_under(path, "/healthz");
	bool is_get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
	enum http_outcome outcome = HTTP_OK;

	server->detail = NULL;
	if (!is_route && !is_health && !is_under(path, "/metrics"))
		outcome = HTTP_NOT_FOUND;
	else if (is_route && strcmp(method, "POST") != 0)
		refuse_method(server, request, "POST, OPTIONS");
	else if (!is_route && !is_get)
		refuse_method(server, request, "GET, HEAD");
	else if (is_route)
		outcome = on_route(server, request);
	else if (is_health)
		on_health(server, request);
	else
		on_metrics(server, request);
	if (outcome != HTTP_OK)
		refuse(server, fcgi_data(request), outcome);
}

/* --- The life of the process --- */

static bool open_pump(struct server *server)
{
	const struct settings *settings = server->settings;

	server->loop = loop_new();
	if (server->loop != NULL)
		server->pump = pump_new(&(struct pump_settings){.loop = server->loop,
								.database_url = settings->database_url,
								.program = program_name(server->responder->program),
								.batch_max = (size_t)settings->batch_max,
								.queue_max = (size_t)settings->queue_max,
								.metrics = &server->metrics,
								.work = &server->responder->work,
								.on_item = on_item,
								.on_ping = on_ping,
								.context = server});
	if (server->pump == NULL)
		log_event(LOG_ERROR, "start_failed", LOG_TEXT("reason", "out of memory"));
	return server->pump != NULL;
}

static bool open_server(struct server *server)
{
	int listener = -1;

	if (!open_pump(server))
		return false;
	/* Before the socket is taken over from a predecessor, who can still serve. */
	pump_connect(server->pump, START_MS);
	if (listener_open(server->settings->listen, &listener) != RESULT_OK)
		return false;
	server->fcgi = fcgi_new(server->loop, listener, server->responder->request_bytes, on_request, server);
	return server->fcgi != NULL;
}

static void close_server(struct server *server)
{
	fcgi_free(server->fcgi);
	pump_free(server->pump);
	loop_free(server->loop);
}

/* How long the loop may wait. */
static int timeout_ms(const struct server *server)
{
	uint64_t until_ms = pump_next_ms(server->pump);

	if (server->drain_until_ms < until_ms)
		until_ms = server->drain_until_ms;
	if (loop_now_ms(server->loop) < server->accept_until_ms && server->accept_until_ms < until_ms)
		until_ms = server->accept_until_ms;
	return loop_timeout_ms(server->loop, until_ms);
}

/* One round of stopping; true: all is done. From the first signal on: no new connection, but every request that comes
   on an open one is served until the web server has left them all. Closing a kept connection under it would turn its
   next request into an error. */
static bool drain(struct server *server)
{
	int stops = loop_stop_count(server->loop);
	uint64_t now_ms = loop_now_ms(server->loop);

	if (stops == 0)
		return false;
	if (server->drain_until_ms == UINT64_MAX) {
		log_event(LOG_INFO, "stopping", LOG_NUMBER("connections", (long long)fcgi_connections(server->fcgi)));
		listener_unlink(server->settings->listen);
		server->accept_until_ms = now_ms + (server->settings->listen[0] != '\0' ? LATE_MS : 0);
		server->drain_until_ms = now_ms + DRAIN_MS;
	}
	if (now_ms < server->accept_until_ms)
		return false;
	fcgi_stop_accepting(server->fcgi);
	if (fcgi_requests_open(server->fcgi) > 0)
		return false;
	return fcgi_connections(server->fcgi) == 0 || stops > 1 || now_ms >= server->drain_until_ms;
}

int responder_run(const struct responder *responder, const struct settings *settings)
{
	struct server server = {.responder = responder, .settings = settings, .drain_until_ms = UINT64_MAX};
	bool is_open = open_server(&server);

	if (is_open)
		log_event(LOG_INFO, "started", LOG_TEXT("version", PACKAGE_VERSION),
			  LOG_TEXT("listen", settings->listen));
	while (is_open && !drain(&server)) {
		(void)loop_round(server.loop, timeout_ms(&server));
		pump_run(server.pump);
		fcgi_tidy(server.fcgi);
	}
	if (is_open)
		log_event(LOG_INFO, "stopped", LOG_NUMBER("requests", (long long)metrics_answers(&server.metrics)));
	close_server(&server);
	return is_open ? EXIT_SUCCESS : EXIT_FAILURE;
}
