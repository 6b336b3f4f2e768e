/* sweep.h: the scheduled deletion of what has expired, in bounded batches, and the end of mails that come too late. */
#ifndef OTP_SWEEP_H
#define OTP_SWEEP_H

#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/result.h"

struct sweep;

struct sweep_settings {
	const char *database_url;
	int retention_seconds; /* rows are kept so long after their expiry */
	int batch;             /* rows in one transaction, at most */
};

/* Has a connection of its own, which hears no notifications and needs no key. NULL: out of memory. */
struct sweep *sweep_new(struct loop *loop, const struct sweep_settings *settings);
void sweep_free(struct sweep *sweep);

/* Begins a sweep at the oldest row. */
void sweep_begin(struct sweep *sweep);

/* One more transaction. RESULT_OK: there is more to do, after a pause: back to back they slow requests down.
   RESULT_LIMITED: it ended; anything else: it failed. Both are logged, and the next sweep begins anew. */
OTP_MUST_CHECK enum result sweep_go_on(struct sweep *sweep);

#endif
