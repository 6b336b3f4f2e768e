/* db_wait.c: database calls that wait for their answer, for programs that have nothing else to do meanwhile. */
#include "db/db_wait.h"

#include "base/clock.h"

#define CALL_MS 15000 /* the role's statement_timeout comes first */

/* One round, until the connection's own deadline at most. What has come is looked at before a deadline that has passed.
 */
static void wait_once(struct db *db, uint64_t until_ms)
{
	struct loop *loop = db_loop(db);
	uint64_t tick_ms = db_next_tick_ms(db);
	uint64_t now_ms = clock_ms();

	if (tick_ms < until_ms)
		until_ms = tick_ms;
	if (loop_round(loop, until_ms > now_ms ? (int)(until_ms - now_ms) : 0) == 0)
		db_tick(db, loop_now_ms(loop));
}

enum result db_connect(struct db *db, int timeout_ms)
{
	uint64_t until_ms = clock_ms() + (uint64_t)timeout_ms;

	db_connect_now(db);
	while (db_is_connecting(db) && clock_ms() < until_ms && loop_stop_count(db_loop(db)) == 0)
		wait_once(db, until_ms);
	return db_is_up(db) ? RESULT_OK : RESULT_UNAVAILABLE;
}

static void on_answer(void *context, enum result result, const struct pg_result *rows)
{
	struct db_call *call = context;

	call->is_done = true;
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
	while (!call->is_done && db_is_sending(db))
		wait_once(db, UINT64_MAX);
	return RESULT_OK;
}

enum result db_call_end(struct db_call *call, struct pg_result **rows)
{
	while (!call->is_done)
		wait_once(call->db, UINT64_MAX);
	if (rows != NULL && call->result == RESULT_OK)
		*rows = call->rows;
	else
		db_rows_free(call->rows);
	call->rows = NULL;
	return call->result;
}

enum result db_call(struct db *db, size_t statement, const struct db_params *params, struct pg_result **rows)
{
	struct db_call call;
	enum result begun = db_call_begin(db, statement, params, &call);

	return begun == RESULT_OK ? db_call_end(&call, rows) : begun;
}

void db_wait_notification(struct db *db, int timeout_ms)
{
	uint64_t until_ms = clock_ms() + (uint64_t)timeout_ms;

	while (!db_take_notification(db) && clock_ms() < until_ms && loop_stop_count(db_loop(db)) == 0)
		wait_once(db, until_ms);
}
