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

/* The statements of a program, in this order, before the NULL name. One without wake-ups has a NULL name in its place.
   PUMP_ALONE takes the parameters of a batch of one, and does not wait for a row that is locked for long. */
enum pump_statement { PUMP_BATCH, PUMP_ALONE, PUMP_PING, PUMP_NOTIFY };

#define PUMP_PING_SQL "select 1"

/* What a batch is to the program. context comes first in its calls. */
struct pump_work {
	const struct db_statement *statements;
	void *context;

	/* Builds the call for a batch. */
	void (*encode)(void *context, struct db_params *params, struct batch_item *const *items, size_t count);

	/* Takes the verdicts out of the rows of that batch. RESULT_FAULT: they make no sense; nobody succeeds then. */
	enum result (*decode)(void *context, const struct pg_result *rows, size_t count);

	/* Does the verdict of item i hold for all who had asked with its key by now? */
	bool (*is_final)(void *context, size_t i);
};

struct pump_settings {
	struct loop *loop;
	const char *database_url;
	const char *program;
	size_t batch_max;
	size_t queue_max;
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

/* Takes an item in, with key and arrived_ms. RESULT_UNAVAILABLE: the queue is full, or the database is away. */
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
