/* db.h: PostgreSQL through libpq: one connection, prepared statements, binary parameters, at most one call under way.
 */
#ifndef OTP_DB_H
#define OTP_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/result.h"
#include "db/db_params.h"

struct db;
struct db_rows;

/* A statement that is prepared on every connection before its first use. Static data. */
struct db_statement {
	const char *name;
	const char *sql;
};

/* Results, rows and columns from 0. Text and bytes are valid until the call's handler returns (or db_rows_free). */
size_t db_rows_count(const struct db_rows *rows);
bool db_is_null(const struct db_rows *rows, size_t row, int column);
OTP_MUST_CHECK enum result db_get_int(const struct db_rows *rows, size_t row, int column, int32_t *value);
OTP_MUST_CHECK enum result db_get_bigint(const struct db_rows *rows, size_t row, int column, int64_t *value);
const char *db_get_text(const struct db_rows *rows, size_t row, int column); /* "" for null */
const unsigned char *db_get_bytes(const struct db_rows *rows, size_t row, int column, size_t *length);
void db_rows_free(struct db_rows *rows);

/* Is conninfo well-formed? Says what is wrong in the log. Connects to nothing. */
OTP_MUST_CHECK enum result db_check(const char *conninfo);

/* Makes an unconnected handle. statements: static, ended by one with a NULL name. conninfo: libpq's string or URL. */
struct db *db_new(const char *conninfo, const char *program, const struct db_statement *statements);
void db_free(struct db *db);

/* Lets the loop drive the connection; db_tick connects it. */
void db_attach(struct db *db, struct loop *loop);

/* Called once per db_send, from within loop_round or db_tick; rows is NULL unless RESULT_OK. The connection is free
   again by then: the handler may send the next call before it looks at its rows. */
typedef void db_handler(void *context, enum result result, const struct db_rows *rows);

/* Starts a call; RESULT_UNAVAILABLE if not ready. The handler runs later, exactly once, within timeout_ms; results as
   for db_call. */
OTP_MUST_CHECK enum result db_send(struct db *db, size_t statement, const struct db_params *params, int timeout_ms,
				   db_handler *handler, void *context);

bool db_is_ready(const struct db *db); /* connected, prepared and idle: db_send will work */
bool db_is_up(const struct db *db);    /* connected and prepared, idle or not */

/* To be called at least when db_next_tick_ms has come: connects and reconnects with backoff, ends calls that are over
   their time (their connection is dropped, their outcome is unknown). */
void db_tick(struct db *db, uint64_t now_ms);
uint64_t db_next_tick_ms(const struct db *db);

/* The server's clock in ms since 1970 (measured at connect, carried on by the monotonic clock): ids follow it, so that
   a wrong clock here does no harm. Meaningless before the first connection. */
uint64_t db_clock_ms(const struct db *db, uint64_t now_ms);

/* --- What db_wait.h drives the connection with, in place of a loop. --- */

/* Starts connecting at once, whatever the backoff, unless it is under way or done. */
void db_start(struct db *db);
bool db_is_connecting(const struct db *db);

/* The descriptor to poll, and whether for room to write as well (or, while connecting, alone). */
int db_descriptor(const struct db *db);
short db_poll_events(struct db *db);
void db_event(struct db *db, bool readable, bool writable, uint64_t now_ms);

/* LISTEN on a channel on every connection from now on. channel: a plain identifier, static. */
void db_listen(struct db *db, const char *channel);

/* Has a notification come since the last call? */
bool db_take_notification(struct db *db);

/* Called in a handler: its rows outlive it; free them with db_rows_free. */
struct db_rows *db_take_rows(struct db *db);

#endif
