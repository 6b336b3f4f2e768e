/* db_wait.h: database calls that wait for their answer, for programs that have nothing else to do meanwhile. */
#ifndef OTP_DB_WAIT_H
#define OTP_DB_WAIT_H

#include "db/db.h"
#include "db/db_rows.h"

/* Connects within timeout_ms, or RESULT_UNAVAILABLE (logged once per state change). Does nothing on a live connection;
   ends early when the program is to stop. */
OTP_MUST_CHECK enum result db_connect(struct db *db, int timeout_ms);

/* Runs one call; results as for db_send. rows may be NULL when nobody needs them; else free them with db_rows_free. */
OTP_MUST_CHECK enum result db_call(struct db *db, size_t statement, const struct db_params *params,
				   struct pg_result **rows);

/* A call under way. */
struct db_call {
	struct db *db;
	struct pg_result *rows;
	enum result result;
	bool is_done;
};

/* The same in two halves, so that the server works while we do something else. The call is sent whole when
   db_call_begin returns RESULT_OK; then db_call_end must follow, before anything else is asked of db; *call stays where
   it is. Its timeout runs from the beginning, but an answer that is there by then is taken however late it is fetched.
 */
OTP_MUST_CHECK enum result db_call_begin(struct db *db, size_t statement, const struct db_params *params,
					 struct db_call *call);
OTP_MUST_CHECK enum result db_call_end(struct db_call *call, struct pg_result **rows);

/* Waits for a notification, until the program is to stop, or for timeout_ms. */
void db_wait_notification(struct db *db, int timeout_ms);

#endif
