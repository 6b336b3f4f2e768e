/* sqlstate.c: what an error code of PostgreSQL means for a call. */
#include "db/sqlstate.h"

#include <stddef.h>
#include <string.h>

enum result sqlstate_result(const char *state)
{
	static const char *const passing[] = {
	    "40", /* deadlock, serialization */
	    "53", /* disk full, out of memory, too many connections */
	    "55", /* lock not available */
	    "57", /* cancelled: a time-out, an operator */
	    "58", /* input and output */
	};

	/* Goodbye, or a server that has become a standby: no use going on with this session. */
	if (state == NULL || strncmp(state, "57P0", 4) == 0 || strcmp(state, "25006") == 0)
		return RESULT_UNKNOWN;
	for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
		if (strncmp(state, passing[i], 2) == 0)
			return RESULT_UNAVAILABLE;
	}
	return RESULT_FAULT;
}

bool sqlstate_is_of_shared_session(const char *state)
{
	return state != NULL && (strcmp(state, "26000") == 0 || strcmp(state, "42P05") == 0);
}
