/* pump.h: the way to the database and back: requests in batches, health checks, and wake-ups of the workers. */
#ifndef OTP_PUMP_H
#define OTP_PUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "base/result.h"
#include "db/db.h"
#include "http/batch.h"
#include "http/metrics.h"

/* The statements of a program, in this order: a health check; two for each of its calls, whose numbers are the items':
   a batch, and a batch of one that does not wait for a row that is locked for long; then others, before the NULL name.
 */
enum pump_statement { PUMP_PING, PUMP_CALLS };

#define PUMP_PING_SQL "select 1"
#define PUMP_BATCH(call) (PUMP_CALLS + 2 * (call))
#define PUMP_ALONE(call) (PUMP_BATCH(call) + 1)

/* What a batch is to the program. context comes first in its calls. */
struct pump_work {
	const struct db_statement *statements;
	unsigned notify;     /* the statement that wakes the workers */
	unsigned depth;      /* the one that counts the mails that wait, up to a number */
	unsigned mail_calls; /* a bit for each call that queues mails, after which they are woken */
	void *context;

	/* Builds the call for a batch, whose items are of one call and group. */
	void (*encode)(void *context, struct db_params *params, struct batch_item *const *items, size_t count);

	/* Takes the verdicts out of the rows of a batch of that call. RESULT_FAULT: they make no sense; nobody succeeds
	   then. */
	enum result (*decode)(void *context, unsigned call, const struct pg_result *rows, size_t count);

	/* Does verdict i, of item, hold as well for one that had asked with its key by now? */
	bool (*is_shared)(void *context, const struct batch_item *item, const struct batch_item *follower, size_t i);
};

struct pump_settings {
	struct loop *loop;
	const char *database_url;
	const char *program;
	size_t batch_max;
	size_t queue_max;
	int outbox_max; /* mails that may wait; 0: any number, and nobody counts */
	struct metrics *metrics;
	const struct pump_work *work;

	/* How an item ended: RESULT_OK with the number of its verdict, or why it has none. It has left the pump. */
	void (*on_item)(void *context, struct batch_item *item, enum result result, size_t verdict);

	/* How a health check ended. */
	void (*on_ping)(void *context, struct batch_item *item, enum result result);

	void *context; /* of both */
};

struct pump;

/* NULL: out of memory. settings is copied. */
struct pump *pump_new(const struct pump_settings *settings);
void pump_free(struct pump *pump);

/* Connects for up to timeout_ms. Without a database requests are refused at once, until it comes. */
void pump_connect(struct pump *pump, int timeout_ms);

/* Takes an item in, as batch_add wants it. RESULT_UNAVAILABLE: the queue is full, or the database is away, or the call
   queues mails and too many wait already. */
OTP_MUST_CHECK enum result pump_add(struct pump *pump, struct batch_item *item);

/* Asks the database whether it answers. RESULT_UNAVAILABLE: it is away. */
OTP_MUST_CHECK enum result pump_ping(struct pump *pump, struct batch_item *item);

/* After every round of the loop, and when pump_next_ms has come: what can go to the database goes; what waits for too
   long is refused. */
void pump_run(struct pump *pump);
uint64_t pump_next_ms(const struct pump *pump);

bool pump_is_up(const struct pump *pump);
size_t pump_waiting(const struct pump *pump); /* items in the queue and under way */

/* The database's clock in ms since 1970. */
uint64_t pump_clock_ms(const struct pump *pump);

#endif
