/* db.c: PostgreSQL through libpq: one connection, prepared statements, binary parameters, at most one call under way.
 */
#include "db/db.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "db/db_target.h"
#include "db/sqlstate.h"

#define BACKOFF_FIRST_MS 10 /* after all servers were tried once; the first try comes at once */
#define BACKOFF_MAX_MS 2000
#define QUERY_BYTES 1024

enum state {
	STATE_DOWN,       /* waiting for the next try */
	STATE_CONNECTING, /* libpq's handshake */
	STATE_PREPARING,  /* step after step */
	STATE_READY,
	STATE_BUSY
};

/* The steps of preparing a session; then come the statements, and at last the channel. */
enum step { STEP_CHECK, STEP_SET, STEP_CHECK_AGAIN, STEP_STATEMENTS };

struct db {
	const struct db_client *client;
	const char *channel;
	struct loop *loop;
	struct loop_watch watch;
	struct db_target *target;
	PGconn *connection;
	PGresult *result; /* the last of the call under way */
	PGresult *rows;   /* what the handler is looking at */
	enum state state;
	bool notified;
	db_listener *listener;
	void *listener_context;
	bool was_down;
	bool wants_write;
	PostgresPollingStatusType polling;
	size_t statement_count;
	size_t step;
	int backoff_ms;
	uint64_t tick_ms; /* state DOWN: when to try; otherwise: the deadline */
	int64_t clock_offset_ms;
	db_handler *handler;
	void *context;
};

static void on_watch(void *context, bool readable, bool writable);

struct db *db_new(struct loop *loop, const char *conninfo, const struct db_client *client)
{
	struct db *db = calloc(1, sizeof(*db));
	char options[QUERY_BYTES];
	struct text text;

	if (db == NULL)
		return NULL;
	text_init(&text, options, sizeof(options));
	db_session_put_options(&text, client->settings);
	db->client = client;
	while (client->statements[db->statement_count].name != NULL)
		db->statement_count++;
	db->loop = loop;
	db->watch = (struct loop_watch){.fd = -1, .handler = on_watch, .context = db};
	db->target = db_target_new(conninfo, client->program, options);
	if (db->target != NULL)
		return db;
	free(db);
	return NULL;
}

void db_free(struct db *db)
{
	if (db == NULL)
		return;
	loop_remove(db->loop, &db->watch);
	PQclear(db->result);
	PQfinish(db->connection);
	db_target_free(db->target);
	free(db);
}

/* Keeps the loop's watch in step with the socket, which libpq may replace while it connects. */
static void rewatch(struct db *db, bool socket_may_be_new, bool wants_write)
{
	if (socket_may_be_new) {
		loop_remove(db->loop, &db->watch);
		db->watch.fd = PQsocket(db->connection);
		db->wants_write = false;
		if (db->watch.fd < 0 || loop_add(db->loop, &db->watch) != RESULT_OK)
			db->watch.fd = -1;
	}
	if (db->watch.fd >= 0 && wants_write != db->wants_write &&
	    loop_want_write(db->loop, &db->watch, wants_write) == RESULT_OK)
		db->wants_write = wants_write;
}

/* Hands the outcome to the caller of db_send, once. */
static void complete(struct db *db, enum result result, PGresult *rows)
{
	db_handler *handler = db->handler;

	db->handler = NULL;
	if (handler != NULL)
		handler(db->context, result, rows);
}

/* When to try again: at once with the next server, and in growing steps when all have failed. */
static int next_pause_ms(struct db *db)
{
	int pause_ms = db->backoff_ms;

	if (db->state == STATE_READY || db->state == STATE_BUSY || db_target_advance(db->target))
		return 0;
	db->backoff_ms = pause_ms == 0 ? BACKOFF_FIRST_MS : pause_ms * 2;
	if (db->backoff_ms > BACKOFF_MAX_MS)
		db->backoff_ms = BACKOFF_MAX_MS;
	return pause_ms;
}

/* The connection is gone: whoever waits learns it, and the next try is due. event NULL: nothing is wrong. */
static void lose(struct db *db, uint64_t now_ms, const char *event, const char *why)
{
	if (event != NULL && !db->was_down)
		log_event(LOG_ERROR, event, LOG_TEXT("server", db_target_name(db->target)), LOG_TEXT("reason", why));
	db->was_down = db->was_down || event != NULL;
	loop_remove(db->loop, &db->watch);
	PQclear(db->result);
	db->result = NULL;
	PQfinish(db->connection);
	db->connection = NULL;
	db->tick_ms = now_ms + (uint64_t)next_pause_ms(db);
	db->state = STATE_DOWN;
	complete(db, RESULT_UNKNOWN, NULL);
}

static bool is_shared(const PGresult *answer)
{
	return sqlstate_is_of_shared_session(PQresultErrorField(answer, PG_DIAG_SQLSTATE));
}

static void lose_with_reason(struct db *db, uint64_t now_ms)
{
	const char *event = "database_away";
	char reason[256];

	if (is_shared(db->result)) {
		lose(db, now_ms, "database_pooler",
		     "the session is shared with others: use session mode or a direct connection");
		return;
	}
	(void)snprintf(reason, sizeof(reason), "%s",
		       db->connection != NULL ? PQerrorMessage(db->connection) : "out of memory");
	reason[strcspn(reason, "\n")] = '\0';
	if (db_target_quotes_password(db->target, reason))
		(void)snprintf(reason, sizeof(reason), "not shown: the message quotes the password");
	/* A pooler's word for "options". The session's settings are set after the start then. */
	if (strstr(reason, "unsupported startup parameter") != NULL && db_target_drop_options(db->target))
		event = NULL;
	lose(db, now_ms, event, reason);
}

/* libpq would print what the server tells on its own, and the log is JSON; what matters shows in results. */
static void drop_notice(void *context, const PGresult *notice)
{
	(void)context;
	(void)notice;
}

static void start_connecting(struct db *db, uint64_t now_ms)
{
	db->connection = db_target_connect(db->target);
	db->state = STATE_CONNECTING;
	db->tick_ms = now_ms + (uint64_t)db_target_timeout_ms(db->target);
	if (db->connection == NULL || PQstatus(db->connection) == CONNECTION_BAD) {
		lose_with_reason(db, now_ms);
		return;
	}
	PQsetNoticeReceiver(db->connection, drop_notice, NULL);
	db->polling = PGRES_POLLING_WRITING;
	rewatch(db, true, true);
}

/* Sends whatever libpq still holds. */
static void flush(struct db *db, uint64_t now_ms)
{
	int left = PQflush(db->connection);

	if (left < 0)
		lose_with_reason(db, now_ms);
	else
		rewatch(db, false, left > 0);
}

/* --- Preparing a session --- */

static int send_query(struct db *db)
{
	char query[QUERY_BYTES];
	struct text text;

	text_init(&text, query, sizeof(query));
	if (db->step == STEP_SET)
		db_session_put_set(&text, db->client->settings);
	else if (db->step < STEP_STATEMENTS)
		db_session_put_check(&text, db->client->settings);
	else
		text_printf(&text, "listen %s", db->channel);
	return PQsendQueryParams(db->connection, query, 0, NULL, NULL, NULL, NULL, 1);
}

static void send_step(struct db *db, uint64_t now_ms)
{
	size_t number = db->step - STEP_STATEMENTS;
	int sent;

	if (db->step >= STEP_STATEMENTS && number < db->statement_count)
		sent = PQsendPrepare(db->connection, db->client->statements[number].name,
				     db->client->statements[number].sql, 0, NULL);
	else
		sent = send_query(db);
	if (!sent)
		lose_with_reason(db, now_ms);
	else
		flush(db, now_ms);
}

static void become_ready(struct db *db)
{
	db->state = STATE_READY;
	db->backoff_ms = 0;
	db->tick_ms = UINT64_MAX;
	db->was_down = false;
	db_target_keep(db->target);
	log_event(LOG_INFO, "database_up", LOG_TEXT("server", db_target_name(db->target)),
		  LOG_NUMBER("server_version", PQserverVersion(db->connection)));
}

/* What the check of a session has found; false: the connection is given up. */
static bool judge_session(struct db *db, uint64_t now_ms)
{
	struct db_session session;
	struct db_session_flaw flaw;

	if (db_session_read(db->result, &session, &flaw) != RESULT_OK) {
		lose(db, now_ms, flaw.event, flaw.reason);
		return false;
	}
	db->clock_offset_ms = session.clock_ms - (int64_t)clock_ms();
	if (session.backend_pid != PQbackendPID(db->connection) && db->step == STEP_CHECK && !db->was_down)
		log_event(LOG_INFO, "database_pooler", LOG_TEXT("server", db_target_name(db->target)),
			  LOG_TEXT("reason", "a pooler is in between: it must be in session mode"));
	if (!session.has_settings && db->step == STEP_CHECK_AGAIN) {
		lose(db, now_ms, "database_pooler",
		     "the session does not keep its settings: use session mode or a direct connection");
		return false;
	}
	db->step = session.has_settings ? STEP_STATEMENTS : db->step + 1;
	return true;
}

/* A step of preparing is answered. A check that is refused has found no otp.schema_version. */
static void finish_step(struct db *db, uint64_t now_ms)
{
	ExecStatusType status = PQresultStatus(db->result);
	const char *state = PQresultErrorField(db->result, PG_DIAG_SQLSTATE);
	bool is_missing = state != NULL && (strcmp(state, "42883") == 0 || strcmp(state, "3F000") == 0);

	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && !(is_missing && db->step == STEP_CHECK)) {
		lose_with_reason(db, now_ms);
		return;
	}
	if (db->step == STEP_SET || db->step >= STEP_STATEMENTS)
		db->step++;
	else if (!judge_session(db, now_ms))
		return;
	PQclear(db->result);
	db->result = NULL;
	if (db->step < STEP_STATEMENTS + db->statement_count ||
	    (db->step == STEP_STATEMENTS + db->statement_count && db->channel != NULL))
		send_step(db, now_ms);
	else
		become_ready(db);
}

/* --- Answers --- */

/* Logs an error that the server sent, but for those by which it says goodbye. */
static enum result refused(const PGresult *answer)
{
	const char *state = PQresultErrorField(answer, PG_DIAG_SQLSTATE);
	enum result result = sqlstate_result(state);

	if (result != RESULT_UNKNOWN && !is_shared(answer))
		log_event(LOG_ERROR, "database_refused", LOG_TEXT("sqlstate", state),
			  LOG_TEXT("message", PQresultErrorField(answer, PG_DIAG_MESSAGE_PRIMARY)));
	return result;
}

/* The call under way is answered in full. */
static void finish_call(struct db *db, uint64_t now_ms)
{
	ExecStatusType status = PQresultStatus(db->result);
	enum result result = RESULT_OK;

	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		result = refused(db->result);
	if (result == RESULT_UNKNOWN || is_shared(db->result) || PQstatus(db->connection) == CONNECTION_BAD) {
		lose_with_reason(db, now_ms);
		return;
	}
	/* The handler may send the next call, and even lose the connection: its rows are out of the way. */
	db->rows = db->result;
	db->result = NULL;
	db->state = STATE_READY;
	db->tick_ms = UINT64_MAX;
	complete(db, result, result == RESULT_OK ? db->rows : NULL);
	PQclear(db->rows);
	db->rows = NULL;
}

/* Reads what has come; at the end of an answer, goes on according to the state. */
static void read_answers(struct db *db, uint64_t now_ms)
{
	if (!PQconsumeInput(db->connection)) {
		lose_with_reason(db, now_ms);
		return;
	}
	while ((db->state == STATE_PREPARING || db->state == STATE_BUSY) && !PQisBusy(db->connection)) {
		PGresult *result = PQgetResult(db->connection);

		if (result != NULL) {
			PQclear(db->result);
			db->result = result;
		} else if (db->state == STATE_BUSY) {
			finish_call(db, now_ms);
		} else {
			finish_step(db, now_ms);
		}
	}
	for (PGnotify *notify; db_is_up(db) && (notify = PQnotifies(db->connection)) != NULL; PQfreemem(notify)) {
		db->notified = true;
		db->listener(db->listener_context, notify->extra);
	}
	if (db->state == STATE_READY && PQstatus(db->connection) == CONNECTION_BAD)
		lose_with_reason(db, now_ms);
}

static void poll_connecting(struct db *db, uint64_t now_ms)
{
	db->polling = PQconnectPoll(db->connection);
	switch (db->polling) {
	case PGRES_POLLING_FAILED:
	case PGRES_POLLING_ACTIVE:
		lose_with_reason(db, now_ms);
		break;
	case PGRES_POLLING_READING:
	case PGRES_POLLING_WRITING:
		rewatch(db, true, db->polling == PGRES_POLLING_WRITING);
		break;
	case PGRES_POLLING_OK:
		rewatch(db, true, false);
		PQsetnonblocking(db->connection, 1);
		db->state = STATE_PREPARING;
		db->step = STEP_CHECK;
		send_step(db, now_ms);
		break;
	}
}

static void on_watch(void *context, bool readable, bool writable)
{
	struct db *db = context;
	uint64_t now_ms = clock_ms();

	if (db->state == STATE_CONNECTING) {
		poll_connecting(db, now_ms);
		return;
	}
	if (writable && db->state != STATE_DOWN)
		flush(db, now_ms);
	if (readable && db->state != STATE_DOWN)
		read_answers(db, now_ms);
}

/* The deadline has passed. A server that was connected and does not answer is not the first to be tried again. */
static void give_up(struct db *db, uint64_t now_ms)
{
	if (db->state == STATE_BUSY)
		(void)db_target_advance(db->target);
	lose(db, now_ms, "database_away", db->state == STATE_BUSY ? "no answer in time" : "connecting took too long");
}

void db_tick(struct db *db, uint64_t now_ms)
{
	if (now_ms < db->tick_ms)
		return;
	if (db->state == STATE_DOWN)
		start_connecting(db, now_ms);
	else
		give_up(db, now_ms);
}

uint64_t db_next_tick_ms(const struct db *db)
{
	return db->tick_ms;
}

bool db_is_ready(const struct db *db)
{
	return db->state == STATE_READY;
}

bool db_is_up(const struct db *db)
{
	return db->state == STATE_READY || db->state == STATE_BUSY;
}

uint64_t db_clock_ms(const struct db *db, uint64_t now_ms)
{
	return (uint64_t)((int64_t)now_ms + db->clock_offset_ms);
}

void db_connect_now(struct db *db)
{
	if (db->state == STATE_DOWN)
		start_connecting(db, clock_ms());
}

bool db_is_connecting(const struct db *db)
{
	return db->state == STATE_CONNECTING || db->state == STATE_PREPARING;
}

struct loop *db_loop(const struct db *db)
{
	return db->loop;
}

void db_listen(struct db *db, const char *channel, db_listener *listener, void *context)
{
	db->channel = channel;
	db->listener = listener;
	db->listener_context = context;
}

bool db_take_notification(struct db *db)
{
	bool notified = db->notified;

	db->notified = false;
	return notified;
}

/* --- Calls --- */

enum result db_send(struct db *db, size_t statement, const struct db_params *params, int timeout_ms,
		    db_handler *handler, void *context)
{
	struct db_params_view view;
	enum result result = db_params_view(params, &view);

	if (result != RESULT_OK)
		return result;
	if (db->state != STATE_READY)
		return RESULT_UNAVAILABLE;
	if (!PQsendQueryPrepared(db->connection, db->client->statements[statement].name, view.count, view.value,
				 view.length, view.format, 1)) {
		lose_with_reason(db, clock_ms());
		return RESULT_UNAVAILABLE;
	}
	db->state = STATE_BUSY;
	db->handler = handler;
	db->context = context;
	db->tick_ms = clock_ms() + (uint64_t)timeout_ms;
	/* A failure to flush is seen when the answer is read: the handler must not run before this returns. */
	rewatch(db, false, PQflush(db->connection) > 0);
	return RESULT_OK;
}

bool db_is_sending(const struct db *db)
{
	return db->state == STATE_BUSY && db->wants_write;
}

struct pg_result *db_take_rows(struct db *db)
{
	struct pg_result *rows = db->rows;

	db->rows = NULL;
	return rows;
}
