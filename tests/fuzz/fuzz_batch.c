/* fuzz_batch.c: the batcher against a list: each key in its order, no key twice in a batch, and nobody lost. Each byte
 * of the input is a step. */
#include "fuzz.h"
#include "http/batch.h"

#define ITEMS 48U
#define CAPACITY 32U

enum where { OUT, QUEUED, UNDER_WAY };

/* The model: all items, in any order, and when each came in. */
static struct entry {
	struct batch_item item; /* first: a pointer to it is one to its entry */
	enum where where;
	uint64_t number;
} entries[ITEMS];

static struct batch *batch;
static uint64_t now, next_number;
static size_t inside;

/* Who came first of those with the key of this one, but for itself; NULL: nobody else is inside. */
static struct entry *first_other(const struct entry *one)
{
	struct entry *first = NULL;
	for (struct entry *other = entries; other < entries + ITEMS; other++)
		if (other != one && other->where != OUT &&
		    memcmp(other->item.key, one->item.key, BATCH_KEY_BYTES) == 0 &&
		    (first == NULL || other->number < first->number))
			first = other;
	return first;
}

static bool is_first(const struct entry *one)
{
	const struct entry *other = first_other(one);
	return other == NULL || other->number > one->number;
}

static void leave(struct entry *entry)
{
	FUZZ_ASSERT(entry->where != OUT);
	memset(entry, 0x77, sizeof(*entry)); /* its owner may use it again at once */
	entry->where = OUT;
	inside--;
}

static void add(struct entry *entry, unsigned key)
{
	memset(entry->item.key, 0, BATCH_KEY_BYTES);
	entry->item.key[BATCH_KEY_BYTES - 8] = (unsigned char)(key % 3); /* keys of one hash */
	entry->item.key[0] = (unsigned char)(key / 3);
	entry->item.arrived_ms = now;
	enum result result = batch_add(batch, &entry->item);
	FUZZ_ASSERT(result == (inside < CAPACITY ? RESULT_OK : RESULT_UNAVAILABLE));
	if (result != RESULT_OK)
		return;
	entry->where = QUEUED;
	entry->number = next_number++;
	inside++;
}

static void take(size_t max)
{
	struct batch_item *taken[ITEMS];
	size_t count = batch_take(batch, taken, max);
	FUZZ_ASSERT(count <= max);
	for (size_t i = 0; i < count; i++) {
		struct entry *entry = (struct entry *)taken[i];
		FUZZ_ASSERT(entry->where == QUEUED && is_first(entry));
		FUZZ_ASSERT(!taken[i]->alone || count == 1);
		entry->where = UNDER_WAY;
	}
}

static void take_follower(struct entry *entry)
{
	struct batch_item *follower = batch_take_follower(batch, &entry->item);
	struct entry *expected = first_other(entry);
	FUZZ_ASSERT(follower == (expected != NULL ? &expected->item : NULL));
	if (expected != NULL)
		leave(expected);
}

static void take_overdue(uint64_t before_ms)
{
	struct batch_item *item;
	while ((item = batch_take_overdue(batch, before_ms)) != NULL) {
		struct entry *entry = (struct entry *)item;
		FUZZ_ASSERT(entry->where == QUEUED && is_first(entry) && item->arrived_ms < before_ms);
		leave(entry);
	}
	/* Whoever waits on behind nobody is not overdue. */
	for (struct entry *entry = entries; entry < entries + ITEMS; entry++)
		FUZZ_ASSERT(entry->where != QUEUED || !is_first(entry) || entry->item.arrived_ms >= before_ms);
}

static void step(unsigned what, struct entry *entry, unsigned value)
{
	now += what == 7;
	if (what < 3 && entry->where == OUT)
		add(entry, value);
	else if (what == 3)
		take(1 + value % 16);
	else if (what == 4 && entry->where == UNDER_WAY)
		take_follower(entry);
	else if (what == 5 && entry->where == UNDER_WAY) {
		batch_retry_alone(batch, &entry->item);
		entry->where = QUEUED;
	} else if (what == 6)
		take_overdue(now > value ? now - value : 0);
	else if (entry->where == UNDER_WAY) {
		batch_finish(batch, &entry->item);
		leave(entry);
	}
	FUZZ_ASSERT(batch_count(batch) == inside);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	batch = batch_new(CAPACITY);
	memset(entries, 0, sizeof(entries));
	now = inside = 0;
	while (input.left > 0) {
		unsigned byte = fuzz_byte(&input);
		step(byte % 8, &entries[fuzz_byte(&input) % ITEMS], byte / 8);
	}
	/* Everybody leaves, one key after the other. */
	for (size_t i = 0; inside > 0; i++) {
		FUZZ_ASSERT(i < ITEMS * ITEMS);
		step(3, entries, 15);
		step(8, &entries[i % ITEMS], 0);
	}
	FUZZ_ASSERT(!batch_has_queued(batch) && batch_oldest_ms(batch) == UINT64_MAX);
	batch_free(batch);
	return 0;
}
