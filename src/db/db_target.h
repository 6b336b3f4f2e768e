/* db_target.h: where the database is: the servers that a conninfo names, tried one at a time. */
#ifndef OTP_DB_TARGET_H
#define OTP_DB_TARGET_H

#include <stdbool.h>

#include "base/result.h"

struct db_target;
struct pg_conn; /* libpq's PGconn */

/* Is conninfo (libpq's string or URL) well-formed, and does it mean what it seems to? Complains if not, without a word
   of it: it may hold a password. Connects to nothing. */
OTP_MUST_CHECK enum result db_target_check(const char *conninfo);

/* options: what the session asks for, as in "-c jit=off"; it comes after the operator's own and wins. NULL: out of
   memory. program and options are static. */
struct db_target *db_target_new(const char *conninfo, const char *program, const char *options);
void db_target_free(struct db_target *target);

/* Starts a connection, without waiting, to the current server: libpq gives up on none by itself, and with all of them
   at hand it would begin anew with the first after each failure. NULL: out of memory. */
struct pg_conn *db_target_connect(struct db_target *target);

/* How long a server may take until its session is ready. */
int db_target_timeout_ms(const struct db_target *target);

/* The current server works: it is the first to be tried the next time. */
void db_target_keep(struct db_target *target);

/* The current server does not: the next one is to be tried. False: all were tried since the last that worked. */
bool db_target_advance(struct db_target *target);

/* The pooler in between does not take startup options: they are left out from now on. False: they are already. */
bool db_target_drop_options(struct db_target *target);

/* The current server, such as "db1.example.com (192.0.2.1) 5432"; never NULL. */
const char *db_target_name(const struct db_target *target);

/* Does text quote the password? */
bool db_target_quotes_password(const struct db_target *target, const char *text);

#endif
