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
	http_refuse(&server->answer, outcome, RESPONDER_RETRY_SECONDS, NULL);
	send_answer(server, item, outcome);
}

static struct responder_reply begin_reply(struct server *server)
{
	server->answer.length = 0;
	return (struct responder_reply){.clock_ms = pump_clock_ms(server->pump),
					.now_ms = loop_now_ms(server->loop),
					.answer = &server->answer,
					.number = RESPONDER_RETRY_SECONDS};
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

/* A request that was read has no verdict. */
static void give_up(struct server *server, struct batch_item *item, enum result result)
{
	const struct responder *responder = server->responder;

	if (responder->give_up != NULL)
		responder->give_up(responder->work.context, item, loop_now_ms(server->loop));
	refuse(server, item, outcome_of(result));
}

/* Does what the program has said: an answer, or a request of the database. */
static void end_reply(struct server *server, struct batch_item *item, enum http_outcome outcome,
		      const struct responder_reply *reply)
{
	if (outcome != HTTP_OK)
		http_refuse(&server->answer, outcome, reply->number, reply->detail);
	if (server->answer.length > 0)
		send_answer(server, item, outcome);
	else if (pump_add(server->pump, item) != RESULT_OK)
		give_up(server, item, RESULT_UNAVAILABLE);
}

static void on_item(void *context, struct batch_item *item, enum result result, size_t verdict)
{
	struct server *server = context;
	const struct responder *responder = server->responder;
	struct responder_reply reply = begin_reply(server);

	if (result != RESULT_OK)
		give_up(server, item, result);
	else
		end_reply(server, item, responder->answer(responder->work.context, item, verdict, &reply), &reply);
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

/* The body as JSON, or why it is none. */
static enum http_outcome read_json(struct server *server, struct fcgi_request *request, struct json_t **json,
				   struct responder_reply *reply)
{
	const char *encoding = fcgi_parameter(request, "HTTP_CONTENT_ENCODING");
	const char *body = NULL;
	size_t length = 0;
	char reason[JSONDOC_REASON_BYTES];
	enum result result = fcgi_body(request, &body, &length);

	if (result != RESULT_OK)
		return result == RESULT_LIMITED ? HTTP_TOO_LARGE : HTTP_BAD_REQUEST;
	if (!http_is_json(fcgi_parameter(request, "CONTENT_TYPE")))
		return HTTP_UNSUPPORTED_TYPE;
	if (encoding[0] != '\0' && strcasecmp(encoding, "identity") != 0) {
		reply->detail = "The body must not be compressed: Content-Encoding must be identity or absent.";
		return HTTP_UNSUPPORTED_TYPE;
	}
	if (jsondoc_parse(json, body, length, reason) != RESULT_OK) {
		(void)snprintf(server->json_detail, sizeof(server->json_detail), "The body: %s.", reason);
		reply->detail = server->json_detail;
		return HTTP_BAD_REQUEST;
	}
	return HTTP_OK;
}

static void on_route(struct server *server, struct fcgi_request *fcgi, const struct responder_route *route)
{
	struct batch_item *item = fcgi_data(fcgi);
	struct responder_reply reply = begin_reply(server);
	struct json_t *json = NULL;
	enum http_outcome outcome = read_json(server, fcgi, &json, &reply);

	if (outcome == HTTP_OK) {
		struct responder_request request = {.json = json,
						    .accept_language = fcgi_parameter(fcgi, "HTTP_ACCEPT_LANGUAGE"),
						    .authorization = fcgi_parameter(fcgi, "HTTP_AUTHORIZATION"),
						    .origin = fcgi_parameter(fcgi, "HTTP_ORIGIN"),
						    .now_ms = reply.now_ms};

		item->arrived_ms = reply.now_ms;
		outcome = route->read(server->responder->work.context, item, &request, &reply);
	}
	end_reply(server, item, outcome, &reply);
	jsondoc_free(json);
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

static const struct responder_route *find_route(const struct server *server, const char *path)
{
	const struct responder_route *route = server->responder->routes;

	while (route->path != NULL && strcmp(route->path, path) != 0)
		route++;
	return route->path != NULL ? route : NULL;
}

static void on_request(void *context, struct fcgi_request *request)
{
	struct server *server = context;
	const char *path = fcgi_parameter(request, "DOCUMENT_URI");
	const char *method = fcgi_parameter(request, "REQUEST_METHOD");
	const struct responder_route *route = find_route(server, path);
	bool is_health = is_under(path, "/healthz");
	bool is_get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;

	if (route == NULL && !is_health && !is_under(path, "/metrics"))
		refuse(server, fcgi_data(request), HTTP_NOT_FOUND);
	else if (route != NULL && strcmp(method, "POST") != 0)
		refuse_method(server, request, "POST, OPTIONS");
	else if (route == NULL && !is_get)
		refuse_method(server, request, "GET, HEAD");
	else if (route != NULL)
		on_route(server, request, route);
	else if (is_health)
		on_health(server, request);
	else
		on_metrics(server, request);
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
								.outbox_max = settings->outbox_max,
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
		if (loop_take_hangup(server.loop))
			responder->reload(responder->work.context);
		pump_run(server.pump);
		fcgi_tidy(server.fcgi);
	}
	if (is_open)
		log_event(LOG_INFO, "stopped", LOG_NUMBER("requests", (long long)metrics_answers(&server.metrics)));
	close_server(&server);
	return is_open ? EXIT_SUCCESS : EXIT_FAILURE;
}
