/* db_wait.c: database calls that wait for their answer, for programs without an event loop. */
#include "db/db_wait.h"

#include <poll.h>

#include "base/clock.h"

#define CALL_MS 15000 /* the role's statement_timeout comes first */

/* Waits for the connection until its patience ends, and handles what came. */
static void wait_once(struct db *db)
{
	uint64_t now_ms = clock_ms();
	uint64_t until_ms = db_next_tick_ms(db);
	struct pollfd descriptor = {.fd = db_descriptor(db), .events = db_poll_events(db)};

	if (poll(&descriptor, 1, until_ms > now_ms ? (int)(until_ms - now_ms) : 0) > 0)
		db_event(db, (descriptor.revents & ~POLLOUT) != 0, (descriptor.revents & POLLOUT) != 0, clock_ms());
	else
		db_tick(db, clock_ms());
}

enum result db_connect(struct db *db)
{
	db_start(db);
	while (db_is_connecting(db))
		wait_once(db);
	return db_is_up(db) ? RESULT_OK : RESULT_UNAVAILABLE;
}

static void on_answer(void *context, enum result result, const struct db_rows *rows)
{
	struct db_call *call = context;

	call->done = true;
	call->result = result;
	call->rows = rows != NULL ? db_take_rows(call->db) : NULL;
}

enum result db_call_begin(struct db *db, size_t statement, const struct db_params *params, struct db_call *call)
{
	enum result sent;

	*call = (struct db_call){.db = db};
	sent = db_send(db, statement, params, CALL_MS, on_answer, call);
	if (sent != RESULT_OK)
		return sent;
	/* Nobody will send the rest before db_call_end. */
	while (!call->done && (db_poll_events(db) & POLLOUT) != 0)
		wait_once(db);
	return RESULT_OK;
}

enum result db_call_end(struct db_call *call, struct db_rows **rows)
{
	while (!call->done)
		wait_once(call->db);
	if (rows != NULL && call->result == RESULT_OK)
		*rows = call->rows;
	else
		db_rows_free(call->rows);
	call->rows = NULL;
	return call->result;
}

enum result db_call(struct db *db, size_t statement, const struct db_params *params, struct db_rows **rows)
{
	struct db_call call;
	enum result begun = db_call_begin(db, statement, params, &call);

	return begun == RESULT_OK ? db_call_end(&call, rows) : begun;
}

bool db_wait_notify(struct db *db, int timeout_ms, const sigset_t *mask)
{
	struct pollfd descriptor = {.fd = db_descriptor(db), .events = POLLIN};
	struct timespec timeout = {.tv_sec = timeout_ms / 1000, .tv_nsec = (long)(timeout_ms % 1000) * 1000000};
	bool notified = db_take_notification(db);

	if (notified || ppoll(&descriptor, 1, &timeout, mask) <= 0)
		return notified;
	db_event(db, true, false, clock_ms());
	return db_take_notification(db);
}
