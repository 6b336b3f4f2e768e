/* batch.c: requests that wait for the database, gathered so that many leave together, and none twice. */
#include "http/batch.h"

#include <stdlib.h>
#include <string.h>

struct batch {
	size_t capacity;
	size_t count;
	struct batch_item *head; /* the queue, oldest first */
	struct batch_item *tail;
	size_t mask;
	struct batch_item *table[]; /* the first of every line, queued or under way, by key */
};

struct batch *batch_new(size_t capacity)
{
	size_t slots = 1;
	struct batch *batch;

	while (slots < capacity)
		slots *= 2;
	batch = calloc(1, sizeof(*batch) + slots * sizeof(batch->table[0]));
	if (batch != NULL) {
		batch->capacity = capacity;
		batch->mask = slots - 1;
	}
	return batch;
}

void batch_free(struct batch *batch)
{
	free(batch);
}

static struct batch_item **table_slot(struct batch *batch, const struct batch_item *item)
{
	uint64_t hash;

	memcpy(&hash, item->key + BATCH_KEY_BYTES - sizeof(hash), sizeof(hash));
	return &batch->table[hash & batch->mask];
}

/* The place in the table that points to the line of this key, or to where it belongs. */
static struct batch_item **table_find(struct batch *batch, const struct batch_item *item)
{
	struct batch_item **place = table_slot(batch, item);

	while (*place != NULL && memcmp((*place)->key, item->key, BATCH_KEY_BYTES) != 0)
		place = &(*place)->chain;
	return place;
}

/* In order of arrival: behind those that waited longer, so that the head is the oldest and the first to be overdue. */
static void queue_insert(struct batch *batch, struct batch_item *item)
{
	struct batch_item **place = &batch->head;

	if (batch->tail != NULL && batch->tail->arrived_ms <= item->arrived_ms)
		place = &batch->tail->next;
	while (*place != NULL && (*place)->arrived_ms <= item->arrived_ms)
		place = &(*place)->next;
	item->next = *place;
	*place = item;
	if (item->next == NULL)
		batch->tail = item;
}

/* Takes the item that place points to out of the queue; before is the one in front of it, NULL if it is the head. */
static struct batch_item *queue_remove(struct batch *batch, struct batch_item **place, struct batch_item *before)
{
	struct batch_item *item = *place;

	*place = item->next;
	if (batch->tail == item)
		batch->tail = before;
	return item;
}

enum result batch_add(struct batch *batch, struct batch_item *item)
{
	struct batch_item **place;

	if (batch->count >= batch->capacity)
		return RESULT_UNAVAILABLE;
	item->alone = false;
	item->next = item->line = item->line_end = item->chain = NULL;
	place = table_find(batch, item);
	if (*place == NULL) {
		*place = item;
		queue_insert(batch, item);
	} else if ((*place)->line == NULL) {
		(*place)->line = (*place)->line_end = item;
	} else {
		(*place)->line_end->next = item;
		(*place)->line_end = item;
	}
	batch->count++;
	return RESULT_OK;
}

size_t batch_take(struct batch *batch, struct batch_item **items, size_t max)
{
	struct batch_item **place = &batch->head;
	struct batch_item *before = NULL;
	const struct batch_item *first = batch->head;
	size_t count = 0;

	while (count < max && *place != NULL) {
		struct batch_item *item = *place;

		if (item->call == first->call && item->group == first->group && (!item->alone || item == first)) {
			items[count++] = queue_remove(batch, place, before);
			if (item->alone)
				break;
		} else {
			before = item;
			place = &item->next;
		}
	}
	return count;
}

void batch_finish(struct batch *batch, struct batch_item *item)
{
	struct batch_item **place = table_find(batch, item);
	struct batch_item *heir = item->line;

	batch->count--;
	if (heir == NULL) {
		*place = item->chain;
		return;
	}
	heir->line = heir->next;
	heir->line_end = heir->next != NULL ? item->line_end : NULL;
	heir->chain = item->chain;
	*place = heir;
	queue_insert(batch, heir);
}

const struct batch_item *batch_follower(const struct batch_item *item)
{
	return item->line;
}

struct batch_item *batch_take_follower(struct batch *batch, struct batch_item *item)
{
	struct batch_item *follower = item->line;

	if (follower == NULL)
		return NULL;
	item->line = follower->next;
	if (item->line == NULL)
		item->line_end = NULL;
	batch->count--;
	return follower;
}

void batch_retry_alone(struct batch *batch, struct batch_item *item)
{
	item->alone = true;
	queue_insert(batch, item);
}

struct batch_item *batch_take_overdue(struct batch *batch, uint64_t before_ms)
{
	struct batch_item *item = batch->head;

	if (item == NULL || item->arrived_ms >= before_ms)
		return NULL;
	(void)queue_remove(batch, &batch->head, NULL);
	batch_finish(batch, item);
	return item;
}

bool batch_has_queued(const struct batch *batch)
{
	return batch->head != NULL;
}

size_t batch_count(const struct batch *batch)
{
	return batch->count;
}

uint64_t batch_oldest_ms(const struct batch *batch)
{
	return batch->head != NULL ? batch->head->arrived_ms : UINT64_MAX;
}
