/* db_session.h: what a program relies on in a session, and whether a new session has it. */
#ifndef OTP_DB_SESSION_H
#define OTP_DB_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"
#include "base/text.h"

struct pg_result;

/* A setting of the server, its value as SHOW prints it ("1500ms", "5s", "on"). A list ends with a NULL name; static. */
struct db_setting {
	const char *name;
	const char *value;
};

/* For requests: one is answered within 3 s, and a slow statement ends before its responder gives it up (1.9 s), so that
   its outcome is known: rolled back. What was accepted is on disk. */
extern const struct db_setting db_session_request[];

/* For what nobody waits for: deliveries, sweeps. */
extern const struct db_setting db_session_background[];

/* The settings as startup options: "-c name=value ...". A database, a role or a restored dump need not know them. */
void db_session_put_options(struct text *text, const struct db_setting *settings);

/* A query whose row db_session_read understands. */
void db_session_put_check(struct text *text, const struct db_setting *settings);

/* A query that sets them, for sessions whose startup options a pooler has dropped. */
void db_session_put_set(struct text *text, const struct db_setting *settings);

struct db_session {
	int64_t clock_ms; /* the server's, since 1970 */
	int32_t schema_version;
	int32_t backend_pid; /* another than libpq knows: a pooler is in between */
	bool has_settings;
};

/* Reads the answer to the check. Otherwise fills flaw: the database answers, but not with the schema that we need. */
struct db_session_flaw {
	const char *event; /* for the log */
	char reason[160];
};
OTP_MUST_CHECK enum result db_session_read(const struct pg_result *rows, struct db_session *session,
					   struct db_session_flaw *flaw);

#endif
