/* responder.c: what both responders share: requests come in, batches go to the database, answers go out. */
#include "http/responder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/loop.h"
#include "http/fcgi.h"
#include "http/listener.h"
#include "http/metrics.h"

/* A request waits in the queue, then at the database; both together stay under the 3 s that are promised. */
#define QUEUE_MS 1000
#define CALL_MS 1900
#define START_MS 2000
#define NOTIFY_MS 20 /* at most one wake-up in this time */
#define RETRY_AFTER_SECONDS 1

/* A stopping responder closes idle connections only after this: nginx leaves them within keepalive_time and
   keepalive_timeout (nginx/upstream.conf). */
#define DRAIN_MS 12000

/* Who had looked the path up before it was given away may still connect; a socket of the supervisor's stays open
 * anyway. */
#define LATE_MS 250

struct done {
	struct batch_item *item;
	struct batch_item *followers; /* to be answered as item is; linked by next */
};

struct server {
	const struct responder *responder;
	const struct config *config;
	struct loop *loop;
	struct fcgi_server *fcgi;
	struct db *db;
	struct batch *batch;
	struct db_params *params;
	struct batch_item **under_way;
	size_t under_way_count;
	struct done *done;
	struct batch_item *pings; /* health checks that wait for the database; linked by next */
	struct batch_item *pings_under_way;
	bool pinged_last;
	bool notify_wanted;
	uint64_t notify_after_ms;
	uint64_t accept_until_ms; /* 0: not draining */
	uint64_t drain_until_ms;  /* UINT64_MAX: not draining */
	struct metrics metrics;
	struct http_answer answer;
};

static void shed(struct server *server);
static void pump(struct server *server);

/* --- Answers --- */

static void send_answer(struct server *server, void *job, enum http_error error)
{
	metrics_count_answer(&server->metrics, error);
	if (error == HTTP_INTERNAL || error == HTTP_UNAVAILABLE)
		log_event(error == HTTP_INTERNAL ? LOG_ERROR : LOG_DEBUG, "request_failed",
			  LOG_TEXT("request_id", fcgi_parameter(fcgi_of_data(job), "REQUEST_ID")),
			  LOG_TEXT("error", http_error_slug(error)));
	fcgi_answer(fcgi_of_data(job), server->answer.text, server->answer.length);
}

static void refuse(struct server *server, void *job, enum http_error error)
{
	http_refuse(&server->answer, error, RETRY_AFTER_SECONDS);
	send_answer(server, job, error);
}

/* --- Batches --- */

static enum http_error error_of(enum result result)
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

/* Takes what is under way out of the batcher, with those behind it who share its verdict. */
static size_t take_done(struct server *server, bool decoded)
{
	const struct responder *responder = server->responder;
	size_t count = server->under_way_count;

	for (size_t i = 0; i < count; i++) {
		struct done *done = &server->done[i];

		done->item = server->under_way[i];
		done->followers = NULL;
		if (decoded && responder->is_final(responder->context, i)) {
			struct batch_item *follower;

			while ((follower = batch_take_follower(server->batch, done->item)) != NULL) {
				follower->next = done->followers;
				done->followers = follower;
			}
		}
		batch_finish(server->batch, done->item);
	}
	server->under_way_count = 0;
	return count;
}

static void answer_done(struct server *server, size_t i)
{
	const struct responder *responder = server->responder;
	struct batch_item *item = server->done[i].item;

	item->next = server->done[i].followers;
	while (item != NULL) {
		struct batch_item *next = item->next;
		enum http_error error = responder->answer(responder->context, i, item, &server->answer);

		send_answer(server, item, error);
		item = next;
	}
}

/* The server refused the batch as a whole, though one request may be to blame: each goes again alone. */
static void retry_alone(struct server *server)
{
	while (server->under_way_count > 0)
		batch_retry_alone(server->batch, server->under_way[--server->under_way_count]);
}

static void on_batch(void *context, enum result result, const struct db_rows *rows)
{
	struct server *server = context;
	const struct responder *responder = server->responder;
	size_t count;

	if (result == RESULT_FAULT && responder->may_retry && server->under_way_count > 1) {
		retry_alone(server);
		return;
	}
	if (result == RESULT_OK)
		result = responder->decode(responder->context, rows, server->under_way_count);
	count = take_done(server, result == RESULT_OK);
	if (result == RESULT_OK && responder->statements[RESPONDER_NOTIFY].name != NULL)
		server->notify_wanted = true;
	/* The database works on the next batch while these answers are written. Who has waited too long behind a slow
	   one must not go with it. */
	shed(server);
	pump(server);
	for (size_t i = 0; i < count; i++) {
		if (result == RESULT_OK)
			answer_done(server, i);
		else
			refuse(server, server->done[i].item, error_of(result));
	}
}

static void send_batch(struct server *server)
{
	const struct responder *responder = server->responder;
	enum result result;

	server->under_way_count = batch_take(server->batch, server->under_way, (size_t)server->config->batch_max);
	responder->encode(responder->context, server->params, server->under_way, server->under_way_count);
	metrics_count_batch(&server->metrics, server->under_way_count);
	result = db_send(server->db, RESPONDER_BATCH, server->params, CALL_MS, on_batch, server);
	while (result != RESULT_OK && server->under_way_count > 0) {
		struct batch_item *item = server->under_way[--server->under_way_count];

		batch_finish(server->batch, item);
		refuse(server, item, error_of(result));
	}
}

/* --- Health and wake-up --- */

static void answer_health(struct server *server, void *job, const char *database)
{
	char body[128];

	snprintf(body, sizeof(body),
		 "{\"message\":\"Healthy.\",\"status\":\"ok\",\"program\":\"%s\",\"database\":\"%s\"}\n",
		 config_program_name(server->responder->program), database);
	(void)!http_content(&server->answer, "application/json; charset=utf-8", body);
	send_answer(server, job, HTTP_ERRORS);
}

static void on_ping(void *context, enum result result, const struct db_rows *rows)
{
	struct server *server = context;
	struct batch_item *list = server->pings_under_way;

	(void)rows;
	server->pings_under_way = NULL;
	pump(server);
	while (list != NULL) {
		struct batch_item *item = list;

		list = item->next;
		if (result == RESULT_OK)
			answer_health(server, item, "ok");
		else
			refuse(server, item, HTTP_UNAVAILABLE);
	}
}

static void on_notified(void *context, enum result result, const struct db_rows *rows)
{
	(void)result; /* a lost wake-up costs a second: the workers poll */
	(void)rows;
	pump(context);
}

static void send_ping(struct server *server)
{
	db_params_reset(server->params);
	if (db_send(server->db, RESPONDER_PING, server->params, CALL_MS, on_ping, server) != RESULT_OK)
		return;
	server->pings_under_way = server->pings;
	server->pings = NULL;
}

static void send_notify(struct server *server)
{
	db_params_reset(server->params);
	if (db_send(server->db, RESPONDER_NOTIFY, server->params, CALL_MS, on_notified, server) != RESULT_OK)
		return;
	server->notify_wanted = false;
	server->notify_after_ms = loop_now_ms(server->loop) + NOTIFY_MS;
}

/* --- The pump: what can go to the database goes; what cannot be answered in time is refused --- */

static void refuse_overdue_pings(struct server *server, uint64_t before_ms)
{
	struct batch_item **place = &server->pings;

	while (*place != NULL) {
		struct batch_item *item = *place;

		if (item->arrived_ms < before_ms) {
			*place = item->next;
			refuse(server, item, HTTP_UNAVAILABLE);
		} else {
			place = &item->next;
		}
	}
}

static void shed(struct server *server)
{
	uint64_t now_ms = loop_now_ms(server->loop);
	uint64_t limit_ms = db_is_up(server->db) ? (now_ms > QUEUE_MS ? now_ms - QUEUE_MS : 0) : UINT64_MAX;
	struct batch_item *item;

	while ((item = batch_take_overdue(server->batch, limit_ms)) != NULL)
		refuse(server, item, HTTP_UNAVAILABLE);
	refuse_overdue_pings(server, limit_ms);
}

static void pump(struct server *server)
{
	bool queued = batch_has_queued(server->batch);
	bool ping = server->pings != NULL && !(server->pinged_last && queued);

	if (!db_is_ready(server->db))
		return;
	server->pinged_last = ping;
	if (ping)
		send_ping(server);
	else if (server->notify_wanted && loop_now_ms(server->loop) >= server->notify_after_ms)
		send_notify(server);
	else if (queued)
		send_batch(server);
}

/* --- Requests --- */

static void take_job(struct server *server, void *job, const struct http_json *json)
{
	const struct responder *responder = server->responder;
	uint64_t now_ms = loop_now_ms(server->loop);
	enum http_error error = HTTP_INTERNAL;
	struct batch_item *item = job;

	if (!responder->read(responder->context, job, json, db_clock_ms(server->db, now_ms), now_ms, &server->answer,
			     &error)) {
		send_answer(server, job, error);
		return;
	}
	item->arrived_ms = now_ms;
	if (!db_is_up(server->db) || batch_add(server->batch, item) != RESULT_OK)
		refuse(server, job, HTTP_UNAVAILABLE);
}

static void on_route(struct server *server, struct fcgi_request *request)
{
	void *job = fcgi_data(request);
	const char *body = NULL;
	struct http_json *json = NULL;
	size_t length = 0;
	enum result result = fcgi_body(request, &body, &length);

	if (result != RESULT_OK) {
		refuse(server, job, result == RESULT_LIMITED ? HTTP_TOO_LARGE : HTTP_BAD_REQUEST);
		return;
	}
	if (!http_is_json(fcgi_parameter(request, "CONTENT_TYPE"))) {
		refuse(server, job, HTTP_UNSUPPORTED_TYPE);
	} else if (http_parse(&json, body, length) != RESULT_OK) {
		refuse(server, job, HTTP_BAD_REQUEST);
	} else {
		take_job(server, job, json);
		http_json_free(json);
	}
}

static void on_health(struct server *server, struct fcgi_request *request)
{
	struct batch_item *item = fcgi_data(request);

	if (strcmp(fcgi_parameter(request, "QUERY_STRING"), "check=process") == 0) {
		answer_health(server, item, "unchecked");
	} else if (!db_is_up(server->db)) {
		refuse(server, item, HTTP_UNAVAILABLE);
	} else {
		item->arrived_ms = loop_now_ms(server->loop);
		item->next = server->pings;
		server->pings = item;
	}
}

static void on_metrics(struct server *server, struct fcgi_request *request)
{
	char text[METRICS_TEXT_MAX];

	server->metrics.queue_length = batch_count(server->batch);
	server->metrics.connections = fcgi_connections(server->fcgi);
	server->metrics.database_up = db_is_up(server->db);
	metrics_write(&server->metrics, config_program_name(server->responder->program), text, sizeof(text));
	if (http_content(&server->answer, "text/plain; version=0.0.4; charset=utf-8", text) == RESULT_OK)
		send_answer(server, fcgi_data(request), HTTP_ERRORS);
	else
		refuse(server, fcgi_data(request), HTTP_INTERNAL);
}

/* "/healthz" or "/healthz/validate": the suffix only tells the web server which program is meant. */
static bool is_under(const char *path, const char *prefix)
{
	size_t length = strlen(prefix);

	return strncmp(path, prefix, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

static void on_request(void *context, struct fcgi_request *request)
{
	struct server *server = context;
	const char *path = fcgi_parameter(request, "DOCUMENT_URI");
	const char *method = fcgi_parameter(request, "REQUEST_METHOD");
	bool is_route = strcmp(path, server->responder->path) == 0;
	bool is_health = is_under(path, "/healthz");
	bool is_get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;

	if (!is_route && !is_health && !is_under(path, "/metrics")) {
		refuse(server, fcgi_data(request), HTTP_NOT_FOUND);
	} else if (is_route ? strcmp(method, "POST") != 0 : !is_get) {
		http_refuse_method(&server->answer, is_route ? "POST, OPTIONS" : "GET, HEAD");
		send_answer(server, fcgi_data(request), HTTP_METHOD_NOT_ALLOWED);
	} else if (is_route) {
		on_route(server, request);
	} else if (is_health) {
		on_health(server, request);
	} else {
		on_metrics(server, request);
	}
}

/* --- The life of the process --- */

/* Connects before the socket is taken over from a predecessor, who can still serve. If the first try fails or takes too
   long, requests are answered all the same, by 503. */
static void await_database(struct server *server)
{
	uint64_t until_ms = loop_now_ms(server->loop) + START_MS;

	db_start(server->db);
	while (db_is_connecting(server->db) && loop_now_ms(server->loop) < until_ms &&
	       loop_stop_count(server->loop) == 0) {
		loop_round(server->loop, (int)(until_ms - loop_now_ms(server->loop)));
		db_tick(server->db, loop_now_ms(server->loop));
	}
}

static bool open_server(struct server *server)
{
	const struct config *config = server->config;
	const char *program = config_program_name(server->responder->program);
	size_t batch_max = (size_t)config->batch_max;
	int listener = -1;

	server->loop = loop_new();
	server->batch = batch_new((size_t)config->queue_max);
	server->params = db_params_new();
	server->under_way = calloc(batch_max, sizeof(server->under_way[0]));
	server->done = calloc(batch_max, sizeof(server->done[0]));
	server->db = db_new(config->database_url, program, server->responder->statements);
	if (server->loop == NULL || server->batch == NULL || server->params == NULL || server->under_way == NULL ||
	    server->done == NULL || server->db == NULL) {
		log_event(LOG_ERROR, "start_failed", LOG_TEXT("reason", "out of memory"));
		return false;
	}
	db_attach(server->db, server->loop);
	http_start();
	await_database(server);
	if (listener_open(config->listen, &listener) != RESULT_OK)
		return false;
	server->fcgi = fcgi_new(server->loop, listener, server->responder->job_bytes, on_request, server);
	return server->fcgi != NULL;
}

static void close_server(struct server *server)
{
	fcgi_free(server->fcgi);
	db_free(server->db);
	free(server->done);
	free(server->under_way);
	db_params_free(server->params);
	batch_free(server->batch);
	loop_free(server->loop);
}

/* How long the loop may sleep. */
static int patience_ms(const struct server *server)
{
	uint64_t now_ms = loop_now_ms(server->loop);
	uint64_t until = db_next_tick_ms(server->db);
	uint64_t oldest = batch_oldest_ms(server->batch);

	if (oldest != UINT64_MAX && oldest + QUEUE_MS < until)
		until = oldest + QUEUE_MS + 1;
	/* A busy database wakes us when it has answered; the wake-up goes out then. */
	if (server->notify_wanted && db_is_ready(server->db) && server->notify_after_ms < until)
		until = server->notify_after_ms;
	if (server->drain_until_ms < until)
		until = server->drain_until_ms;
	if (now_ms < server->accept_until_ms && server->accept_until_ms < until)
		until = server->accept_until_ms;
	if (until == UINT64_MAX)
		return -1;
	if (until <= now_ms)
		return 0;
	return until - now_ms < 60000 ? (int)(until - now_ms) : 60000;
}

/* From the first signal on: no new connection, but every request that comes on an open one is served until the web
   server has left them all. Closing a kept connection under it would turn its next request into an error. */
static bool is_drained(struct server *server)
{
	int stops = loop_stop_count(server->loop);
	uint64_t now_ms = loop_now_ms(server->loop);

	if (stops == 0)
		return false;
	if (server->drain_until_ms == UINT64_MAX) {
		log_event(LOG_INFO, "stopping", LOG_NUMBER("connections", (long long)fcgi_connections(server->fcgi)));
		listener_unlink(server->config->listen);
		server->accept_until_ms = now_ms + (server->config->listen[0] != '\0' ? LATE_MS : 0);
		server->drain_until_ms = now_ms + DRAIN_MS;
	}
	if (now_ms < server->accept_until_ms)
		return false;
	fcgi_stop_accepting(server->fcgi);
	if (fcgi_requests_open(server->fcgi) > 0)
		return false;
	return fcgi_connections(server->fcgi) == 0 || stops > 1 || now_ms >= server->drain_until_ms;
}

int responder_run(const struct responder *responder, const struct config *config)
{
	struct server server = {.responder = responder, .config = config, .drain_until_ms = UINT64_MAX};
	bool open = open_server(&server);

	if (open)
		log_event(LOG_INFO, "started", LOG_TEXT("version", PACKAGE_VERSION),
			  LOG_TEXT("listen", config->listen));
	while (open && !is_drained(&server)) {
		loop_round(server.loop, patience_ms(&server));
		db_tick(server.db, loop_now_ms(server.loop));
		shed(&server);
		pump(&server);
		fcgi_tidy(server.fcgi);
	}
	if (open)
		log_event(LOG_INFO, "stopped", LOG_NUMBER("requests", (long long)metrics_answers(&server.metrics)));
	close_server(&server);
	return open ? EXIT_SUCCESS : EXIT_FAILURE;
}
