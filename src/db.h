/* db.h: PostgreSQL through libpq: one connection, prepared statements, binary parameters, at most one call under way. */
#ifndef OTP_DB_H
#define OTP_DB_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "result.h"

struct db;
struct db_rows;

/* A statement that is prepared on every connection before its first use. Static data. */
struct db_statement {
	const char *name;
	const char *sql;
};

/* The parameters of a call, in order. Buffers grow and are reused: no allocation per call once warm. A failed
   allocation is remembered and makes the call return RESULT_FAULT. */
struct db_params;
struct db_params *db_params_new(void); /* NULL: out of memory */
void db_params_free(struct db_params *params); /* wipes */
void db_params_reset(struct db_params *params); /* wipes */
void db_add_int(struct db_params *params, int32_t value);
void db_add_smallint(struct db_params *params, int16_t value);
void db_add_text(struct db_params *params, const char *text); /* NULL: SQL null */
void db_add_uuid(struct db_params *params, const unsigned char id[static 16]);

/* One-dimensional arrays: begin, then one item per element, then end. */
enum db_element { DB_INT4, DB_TEXT, DB_UUID, DB_BYTEA };
void db_array_begin(struct db_params *params, enum db_element element);
void db_array_bytes(struct db_params *params, const void *bytes, size_t length); /* NULL: SQL null */
void db_array_text(struct db_params *params, const char *text);                  /* NULL: SQL null */
void db_array_int(struct db_params *params, int32_t value);
void db_array_end(struct db_params *params);

/* Results, rows and columns from 0. Text and bytes are valid until the call's handler returns (or db_rows_free). */
size_t db_rows_count(const struct db_rows *rows);
bool db_is_null(const struct db_rows *rows, size_t row, int column);
OTP_MUST_CHECK enum result db_get_int(const struct db_rows *rows, size_t row, int column, int32_t *value);
OTP_MUST_CHECK enum result db_get_bigint(const struct db_rows *rows, size_t row, int column, int64_t *value);
const char *db_get_text(const struct db_rows *rows, size_t row, int column); /* "" for null */
const unsigned char *db_get_bytes(const struct db_rows *rows, size_t row, int column, size_t *length);
void db_rows_free(struct db_rows *rows);

/* Makes an unconnected handle. statements: static, ended by one with a NULL name. conninfo: libpq's string or URL. */
struct db *db_new(const char *conninfo, const char *program, const struct db_statement *statements);
void db_free(struct db *db);

/* --- Blocking use (the worker). --- */

/* Connects within 5 s, or RESULT_UNAVAILABLE (logged once per state change). Does nothing on a live connection. */
OTP_MUST_CHECK enum result db_connect(struct db *db);

/* Runs one call. RESULT_UNAVAILABLE: not connected or certainly rolled back by the server for a passing reason;
   RESULT_UNKNOWN: the connection was lost while it ran; RESULT_FAULT: the server refused it (logged with its SQLSTATE).
   rows may be NULL when nobody needs them; else free them with db_rows_free. */
OTP_MUST_CHECK enum result db_call(struct db *db, size_t statement, const struct db_params *params,
                                   struct db_rows **rows);

/* LISTEN on a channel now and after every reconnect. channel: a plain identifier, static. */
void db_listen(struct db *db, const char *channel);

/* Sleeps until a notification, a signal, or timeout_ms; true if there was a notification. Signals are unblocked only
   while it sleeps, with mask (NULL: keep the current one). */
bool db_wait_notify(struct db *db, int timeout_ms, const sigset_t *mask);

/* --- Use from an event loop (the responders). --- */

/* Called once per db_send, from within db_event or db_tick; rows is NULL unless RESULT_OK. */
typedef void db_handler(void *context, enum result result, const struct db_rows *rows);

/* Starts a call; RESULT_UNAVAILABLE if not ready. The handler runs later, exactly once, within timeout_ms. */
OTP_MUST_CHECK enum result db_send(struct db *db, size_t statement, const struct db_params *params, int timeout_ms,
                                   db_handler *handler, void *context);

bool db_is_ready(const struct db *db);  /* connected, prepared and idle: db_send will work */
bool db_is_up(const struct db *db);     /* connected and prepared, idle or not */

/* The descriptor to watch (-1: none) and for what; both may change after every call into db. */
int db_descriptor(const struct db *db);
bool db_wants_write(const struct db *db);
void db_event(struct db *db, bool readable, bool writable, uint64_t now_ms);

/* To be called at least when db_next_tick_ms has come: connects and reconnects with backoff, ends calls that are over
   their time (their connection is dropped, their outcome is unknown). */
void db_tick(struct db *db, uint64_t now_ms);
uint64_t db_next_tick_ms(const struct db *db);

/* The server's clock in ms since 1970 (measured at connect, carried on by the monotonic clock): ids follow it, so that
   a wrong clock here does no harm. 0 before the first connection. */
uint64_t db_clock_ms(const struct db *db, uint64_t now_ms);

#endif
