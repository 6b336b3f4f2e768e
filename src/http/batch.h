/* batch.h: requests that wait for the database, gathered so that many leave together, and none twice. */
#ifndef OTP_BATCH_H
#define OTP_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

#define BATCH_KEY_BYTES 16U

/* A request in the batcher; part of the caller's own struct. The caller sets key, call, group and arrived_ms. Items of
   one key are a line: the first is queued or under way, the others stand behind it and follow one at a time, so that no
   batch holds a key twice and the requests of one key are answered in the order in which they came. */
struct batch_item {
	unsigned char key[BATCH_KEY_BYTES]; /* its last 8 bytes must be spread evenly: they are the hash */
	unsigned call;                      /* what is asked of the database */
	unsigned group;                     /* of what goes together in that call */
	uint64_t arrived_ms;
	bool alone;              /* goes as a batch of its own: its last batch failed */
	struct batch_item *next; /* in the queue, or in the line */
	struct batch_item *line; /* the first of those behind this one */
	struct batch_item *line_end;
	struct batch_item *chain; /* in the hash table */
};

struct batch;

/* capacity: how many items may wait or be under way. NULL: out of memory. */
struct batch *batch_new(size_t capacity);
void batch_free(struct batch *batch);

/* Takes the item in, in order of arrival. RESULT_UNAVAILABLE: full. */
OTP_MUST_CHECK enum result batch_add(struct batch *batch, struct batch_item *item);

/* Moves up to max queued items to items: the oldest and those of its call and group, oldest first, all of different
   keys. They are under way now. */
size_t batch_take(struct batch *batch, struct batch_item **items, size_t max);

/* The item was answered: it leaves, and the next of its line, if any, is queued in its place. */
void batch_finish(struct batch *batch, struct batch_item *item);

/* The first of the line behind item; NULL: none. Taking it out of the line is for verdicts that hold for everybody who
   had asked by then: it is to be answered as item is. */
const struct batch_item *batch_follower(const struct batch_item *item);
struct batch_item *batch_take_follower(struct batch *batch, struct batch_item *item);

/* Puts an item that is under way back into the queue, by its arrival, to go alone. */
void batch_retry_alone(struct batch *batch, struct batch_item *item);

/* Takes out a queued item (never one under way) that arrived before before_ms, oldest first; NULL: none is left. */
struct batch_item *batch_take_overdue(struct batch *batch, uint64_t before_ms);

bool batch_has_queued(const struct batch *batch);
size_t batch_count(const struct batch *batch); /* waiting and under way */

/* When the oldest queued item arrived; UINT64_MAX: none is queued. */
uint64_t batch_oldest_ms(const struct batch *batch);

#endif
