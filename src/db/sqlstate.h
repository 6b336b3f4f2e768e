/* sqlstate.h: what an error code of PostgreSQL means for a call. */
#ifndef OTP_SQLSTATE_H
#define OTP_SQLSTATE_H

#include <stdbool.h>

#include "base/result.h"

/* state: five characters (PostgreSQL, appendix A), or NULL if the error is libpq's own. RESULT_UNKNOWN: the session
   is over and a commit may have got through. RESULT_UNAVAILABLE: rolled back, for a reason that passes. RESULT_FAULT:
   rolled back, and would be again. */
enum result sqlstate_result(const char *state);

/* An error of a session that is not always the same one: 26000 no such prepared statement, 42P05 there is one already.
   NULL: no. */
bool sqlstate_is_of_shared_session(const char *state);

#endif
