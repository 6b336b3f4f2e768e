/* db.c: PostgreSQL through libpq: one connection, prepared statements, binary parameters, at most one call under way.
 */
#include "db/db.h"

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/complaint.h"
#include "base/log.h"
#include "db/db_rows.h"
#include "db/sqlstate.h"

#define CONNECT_MS 5000
#define BACKOFF_FIRST_MS 50
#define BACKOFF_MAX_MS 2000

enum state {
	STATE_DOWN,       /* waiting for the next try */
	STATE_CONNECTING, /* libpq's handshake */
	STATE_PREPARING,  /* statement after statement, then the clock */
	STATE_READY,
	STATE_BUSY
};

struct db {
	const char *conninfo;
	const char *program;
	const struct db_statement *statements;
	const char *channel;
	struct loop *loop;
	struct loop_watch watch;
	PGconn *connection;
	PGresult *result; /* the last of the call under way */
	PGresult *rows;   /* what the handler is looking at */
	enum state state;
	bool notified;
	bool was_down;
	bool wants_write;
	PostgresPollingStatusType polling;
	size_t statement_count;
	size_t step; /* of preparing */
	int backoff_ms;
	uint64_t tick_ms; /* state DOWN: when to try; otherwise: the deadline */
	int64_t clock_offset_ms;
	db_handler *handler;
	void *context;
};

enum result db_check(const char *conninfo)
{
	char *complaint = NULL;
	PQconninfoOption *options = PQconninfoParse(conninfo, &complaint);

	if (options == NULL) {
		if (complaint != NULL)
			complaint[strcspn(complaint, "\n")] = '\0';
		complain("DATABASE_URL", "%s", complaint != NULL ? complaint : "out of memory");
		PQfreemem(complaint);
		return RESULT_INVALID;
	}
	PQconninfoFree(options);
	return RESULT_OK;
}

static void on_watch(void *context, bool readable, bool writable);

struct db *db_new(struct loop *loop, const char *conninfo, const char *program, const struct db_statement *statements)
{
	struct db *db = calloc(1, sizeof(*db));

	if (db == NULL)
		return NULL;
	db->conninfo = conninfo;
	db->program = program;
	db->statements = statements;
	while (statements[db->statement_count].name != NULL)
		db->statement_count++;
	db->loop = loop;
	db->watch = (struct loop_watch){.fd = -1, .handler = on_watch, .context = db};
	db->backoff_ms = BACKOFF_FIRST_MS;
	return db;
}

void db_free(struct db *db)
{
	if (db == NULL)
		return;
	loop_remove(db->loop, &db->watch);
	PQclear(db->result);
	PQfinish(db->connection);
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

/* The connection is gone: whoever waits learns it, and the next try is due after the backoff. */
static void lose(struct db *db, uint64_t now_ms, const char *why)
{
	if (!db->was_down)
		log_event(LOG_ERROR, "database_away", LOG_TEXT("reason", why));
	db->was_down = true;
	loop_remove(db->loop, &db->watch);
	PQclear(db->result);
	db->result = NULL;
	PQfinish(db->connection);
	db->connection = NULL;
	db->state = STATE_DOWN;
	db->tick_ms = now_ms + (uint64_t)db->backoff_ms;
	db->backoff_ms = db->backoff_ms * 2 < BACKOFF_MAX_MS ? db->backoff_ms * 2 : BACKOFF_MAX_MS;
	complete(db, RESULT_UNKNOWN, NULL);
}

static void lose_with_reason(struct db *db, uint64_t now_ms)
{
	char reason[256];

	snprintf(reason, sizeof(reason), "%s",
		 db->connection != NULL ? PQerrorMessage(db->connection) : "out of memory");
	reason[strcspn(reason, "\n")] = '\0';
	lose(db, now_ms, reason);
}

/* libpq would print what the server tells on its own, and the log is JSON; what matters shows in results. */
static void drop_notice(void *context, const PGresult *notice)
{
	(void)context;
	(void)notice;
}

static void start_connecting(struct db *db, uint64_t now_ms)
{
	/* What the operator's conninfo says comes later and wins. */
	const char *const names[] = {"client_encoding",
				     "fallback_application_name",
				     "keepalives_idle",
				     "keepalives_interval",
				     "keepalives_count",
				     "tcp_user_timeout",
				     "target_session_attrs",
				     "dbname",
				     NULL};
	const char *const values[] = {"UTF8", db->program, "10", "5", "3", "5000", "read-write", db->conninfo, NULL};

	db->connection = PQconnectStartParams(names, values, 1);
	db->state = STATE_CONNECTING;
	db->tick_ms = now_ms + CONNECT_MS;
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

/* The steps of preparing: every statement, then the server's clock, then, if asked for, the channel. */
static void send_step(struct db *db, uint64_t now_ms)
{
	const struct db_statement *statement = &db->statements[db->step];
	char query[80] = "select (extract(epoch from clock_timestamp()) * 1000)::bigint";
	int sent;

	if (db->step > db->statement_count)
		snprintf(query, sizeof(query), "listen %s", db->channel);
	if (db->step < db->statement_count)
		sent = PQsendPrepare(db->connection, statement->name, statement->sql, 0, NULL);
	else
		sent = PQsendQueryParams(db->connection, query, 0, NULL, NULL, NULL, NULL, 1);
	if (!sent)
		lose_with_reason(db, now_ms);
	else
		flush(db, now_ms);
}

static void become_ready(struct db *db)
{
	db->state = STATE_READY;
	db->backoff_ms = BACKOFF_FIRST_MS;
	db->tick_ms = UINT64_MAX;
	db->was_down = false;
	log_event(LOG_INFO, "database_up", LOG_NUMBER("server_version", PQserverVersion(db->connection)));
}

/* A step of preparing is answered. */
static void finish_step(struct db *db, uint64_t now_ms)
{
	ExecStatusType status = PQresultStatus(db->result);
	int64_t server_ms = 0;

	if ((status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) ||
	    (db->step == db->statement_count && db_get_bigint(db->result, 0, 0, &server_ms) != RESULT_OK)) {
		lose_with_reason(db, now_ms);
		return;
	}
	if (db->step == db->statement_count)
		db->clock_offset_ms = server_ms - (int64_t)clock_ms();
	PQclear(db->result);
	db->result = NULL;
	db->step++;
	if (db->step <= db->statement_count || (db->step == db->statement_count + 1 && db->channel != NULL))
		send_step(db, now_ms);
	else
		become_ready(db);
}

/* Logs an error that the server sent, but for those by which it says goodbye. */
static enum result refused(const PGresult *answer)
{
	const char *state = PQresultErrorField(answer, PG_DIAG_SQLSTATE);
	enum result result = sqlstate_result(state);

	if (result != RESULT_UNKNOWN)
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
	if (result == RESULT_UNKNOWN || PQstatus(db->connection) == CONNECTION_BAD) {
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
	for (PGnotify *notify; db_is_up(db) && (notify = PQnotifies(db->connection)) != NULL; PQfreemem(notify))
		db->notified = true;
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
		db->step = 0;
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

void db_tick(struct db *db, uint64_t now_ms)
{
	if (now_ms < db->tick_ms)
		return;
	if (db->state == STATE_DOWN)
		start_connecting(db, now_ms);
	else
		lose(db, now_ms, db->state == STATE_BUSY ? "no answer in time" : "connecting took too long");
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

void db_listen(struct db *db, const char *channel)
{
	db->channel = channel;
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
	if (!PQsendQueryPrepared(db->connection, db->statements[statement].name, view.count, view.value, view.length,
				 view.format, 1)) {
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
