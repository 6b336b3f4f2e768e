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
#include "db/db_session.h"

struct db;
struct pg_result; /* libpq's: the rows of an answer; db_rows.h reads them */

/* A statement that is prepared on every connection before its first use. Static data. */
struct db_statement {
	const char *name;
	const char *sql;
};

/* What a program asks of its connection. Static data. */
struct db_client {
	const char *program;
	const struct db_setting *settings;     /* ended by a NULL name, so for the next */
	const struct db_statement *statements; /* numbered from 0 */
};

/* Makes an unconnected handle that loop will drive; db_tick connects it. conninfo: as db_target_check has found it
   good. NULL: out of memory. */
struct db *db_new(struct loop *loop, const char *conninfo, const struct db_client *client);
void db_free(struct db *db);
struct loop *db_loop(const struct db *db);

/* What a notification says; payload: untrusted. */
typedef void db_listener(void *context, const char *payload);

/* LISTEN on a channel on every connection from now on. channel: a plain identifier, static. The listener is called from
   within loop_round, for each notification. */
void db_listen(struct db *db, const char *channel, db_listener *listener, void *context);

/* Has a notification come since the last call? */
bool db_take_notification(struct db *db);

/* Called once per db_send, from within loop_round or db_tick; rows is NULL unless RESULT_OK. The connection is free
   again by then: the handler may send the next call before it looks at its rows. */
typedef void db_handler(void *context, enum result result, const struct pg_result *rows);

/* Starts a call. RESULT_UNAVAILABLE: not ready; RESULT_FAULT: the parameters could not be built. The handler runs
   later, exactly once, within timeout_ms, with RESULT_UNAVAILABLE: certainly rolled back by the server, for a reason
   that passes; RESULT_UNKNOWN: the connection was lost while it ran; RESULT_FAULT: the server refused it (logged with
   its SQLSTATE). */
OTP_MUST_CHECK enum result db_send(struct db *db, size_t statement, const struct db_params *params, int timeout_ms,
				   db_handler *handler, void *context);

/* Called in a handler: its rows outlive it; free them with db_rows_free. */
struct pg_result *db_take_rows(struct db *db);

bool db_is_connecting(const struct db *db);
bool db_is_ready(const struct db *db);   /* connected, prepared and idle: db_send will work */
bool db_is_up(const struct db *db);      /* connected and prepared, idle or not */
bool db_is_sending(const struct db *db); /* a part of the call has still to be written */

/* Starts connecting at once, whatever the backoff, unless it is under way or done. */
void db_connect_now(struct db *db);

/* To be called at least when db_next_tick_ms has come: connects and reconnects with backoff, ends calls that are over
   their time (their connection is dropped, their outcome is unknown). */
void db_tick(struct db *db, uint64_t now_ms);
uint64_t db_next_tick_ms(const struct db *db);

/* The server's clock in ms since 1970 (measured at connect, carried on by the monotonic clock): ids follow it, so that
   a wrong clock here does no harm. Meaningless before the first connection. */
uint64_t db_clock_ms(const struct db *db, uint64_t now_ms);

#endif
