/* db_wait.h: database calls that wait for their answer, for programs without an event loop. */
#ifndef OTP_DB_WAIT_H
#define OTP_DB_WAIT_H

#include <signal.h>
#include <stdbool.h>

#include "db/db.h"

/* Connects within 5 s, or RESULT_UNAVAILABLE (logged once per state change). Does nothing on a live connection. */
OTP_MUST_CHECK enum result db_connect(struct db *db);

/* Runs one call. RESULT_UNAVAILABLE: not connected or certainly rolled back by the server for a passing reason;
   RESULT_UNKNOWN: the connection was lost while it ran; RESULT_FAULT: the server refused it (logged with its SQLSTATE).
   rows may be NULL when nobody needs them; else free them with db_rows_free. */
OTP_MUST_CHECK enum result db_call(struct db *db, size_t statement, const struct db_params *params,
				   struct db_rows **rows);

/* A call under way. */
struct db_call {
	struct db *db;
	struct db_rows *rows;
	enum result result;
	bool done;
};

/* The same in two halves, so that the server works while we do something else. The call is sent whole when
   db_call_begin returns RESULT_OK; then db_call_end must follow, before anything else is asked of db; *call stays where
   it is. Its patience is counted from the beginning, but an answer that is there by then is taken however late it is
   fetched. */
OTP_MUST_CHECK enum result db_call_begin(struct db *db, size_t statement, const struct db_params *params,
					 struct db_call *call);
OTP_MUST_CHECK enum result db_call_end(struct db_call *call, struct db_rows **rows);

/* Sleeps until a notification, a signal, or timeout_ms; true if there was a notification. Signals are unblocked only
   while it sleeps, with mask (NULL: keep the current one). */
bool db_wait_notify(struct db *db, int timeout_ms, const sigset_t *mask);

#endif
