/* sqlstate.h: what an error code of PostgreSQL means for a call. */
#ifndef OTP_SQLSTATE_H
#define OTP_SQLSTATE_H

#include "base/result.h"

/* state: five characters (PostgreSQL, appendix A), or NULL if the error is libpq's own. RESULT_UNKNOWN: the session
   is over and a commit may have got through. RESULT_UNAVAILABLE: rolled back, for a reason that passes. RESULT_FAULT:
   rolled back, and would be again. */
enum result sqlstate_result(const char *state);

#endif
