/* test_batch.c: no key twice in a batch, each line in its order, nobody lost, nobody older than need be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "http/batch.h"

static struct batch_item make_item(unsigned key, uint64_t arrived_ms)
{
	struct batch_item item;
	memset(&item, 0x5A, sizeof(item)); /* what batch_add must set itself */
	memset(item.key, 0, sizeof(item.key));
	item.key[BATCH_KEY_BYTES - 8] = (unsigned char)key;
	item.key[0] = (unsigned char)(key >> 8);
	item.arrived_ms = arrived_ms;
	return item;
}

static void add(struct batch *batch, struct batch_item *items, size_t count)
{
	for (size_t i = 0; i < count; i++)
		assert_int_equal(batch_add(batch, &items[i]), RESULT_OK);
}

static void an_empty_batcher_gives_nothing(void **state)
{
	(void)state;
	struct batch *batch = batch_new(4);
	struct batch_item *taken[4];
	assert_int_equal(batch_take(batch, taken, 4), 0);
	assert_false(batch_has_queued(batch));
	assert_int_equal(batch_count(batch), 0);
	assert_true(batch_oldest_ms(batch) == UINT64_MAX);
	assert_null(batch_take_overdue(batch, UINT64_MAX));
	batch_free(batch);
}

static void different_keys_leave_together_in_order(void **state)
{
	(void)state;
	struct batch *batch = batch_new(8);
	struct batch_item items[] = {make_item(1, 10), make_item(2, 11), make_item(3, 12)}, *taken[8];
	add(batch, items, 3);
	assert_true(batch_oldest_ms(batch) == 10);
	assert_int_equal(batch_take(batch, taken, 2), 2);
	assert_ptr_equal(taken[0], &items[0]);
	assert_ptr_equal(taken[1], &items[1]);
	assert_true(batch_has_queued(batch));
	assert_int_equal(batch_take(batch, taken + 2, 6), 1);
	assert_ptr_equal(taken[2], &items[2]);
	assert_false(batch_has_queued(batch));
	assert_int_equal(batch_count(batch), 3); /* under way counts */
	for (size_t i = 0; i < 3; i++)
		batch_finish(batch, &items[i]);
	assert_int_equal(batch_count(batch), 0);
	batch_free(batch);
}

static void one_key_leaves_one_at_a_time(void **state)
{
	(void)state;
	struct batch *batch = batch_new(8);
	struct batch_item items[] = {make_item(1, 1), make_item(1, 2), make_item(1, 3)}, *taken[8];
	add(batch, items, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(batch_take(batch, taken, 8), 1);
		assert_ptr_equal(taken[0], &items[i]);
		assert_int_equal(batch_take(batch, taken, 8), 0); /* the others wait until it is answered */
		batch_finish(batch, &items[i]);
	}
	assert_int_equal(batch_count(batch), 0);
	batch_free(batch);
}

static void the_key_is_all_of_its_bytes(void **state)
{
	(void)state;
	/* 1 and 257 have the same hash. */
	struct batch *batch = batch_new(8);
	struct batch_item items[] = {make_item(1, 1), make_item(257, 2), make_item(513, 3)}, *taken[8];
	add(batch, items, 3);
	assert_int_equal(batch_take(batch, taken, 8), 3);
	batch_finish(batch, &items[1]);
	struct batch_item again[] = {make_item(1, 4), make_item(257, 5), make_item(513, 6)};
	add(batch, again, 3);
	assert_int_equal(batch_take(batch, taken, 8), 1);
	assert_ptr_equal(taken[0], &again[1]);
	batch_finish(batch, &items[2]);
	batch_finish(batch, &items[0]);
	assert_int_equal(batch_take(batch, taken, 8), 2);
	for (size_t i = 0; i < 3; i++)
		batch_finish(batch, &again[i]);
	assert_int_equal(batch_count(batch), 0);
	batch_free(batch);
}

static void a_full_batcher_refuses(void **state)
{
	(void)state;
	struct batch *batch = batch_new(2);
	struct batch_item items[] = {make_item(1, 1), make_item(1, 2), make_item(2, 3)}, *taken[2];
	add(batch, items, 2);
	assert_int_equal(batch_add(batch, &items[2]), RESULT_UNAVAILABLE);
	assert_int_equal(batch_take(batch, taken, 2), 1);
	assert_int_equal(batch_add(batch, &items[2]), RESULT_UNAVAILABLE); /* under way counts */
	batch_finish(batch, &items[0]);
	assert_int_equal(batch_add(batch, &items[2]), RESULT_OK);
	batch_free(batch);
}

static void who_retries_goes_alone_and_first(void **state)
{
	(void)state;
	struct batch *batch = batch_new(8);
	struct batch_item items[] = {make_item(1, 1), make_item(2, 2), make_item(3, 3)}, *taken[8];
	add(batch, items, 3);
	assert_int_equal(batch_take(batch, taken, 2), 2);
	batch_retry_alone(batch, taken[1]);
	batch_retry_alone(batch, taken[0]);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(batch_take(batch, taken, 8), 1);
		assert_ptr_equal(taken[0], &items[i]);
		batch_finish(batch, taken[0]);
	}
	struct batch_item later = make_item(4, 4);
	add(batch, &later, 1);
	assert_int_equal(batch_take(batch, taken, 8), 2);
	batch_free(batch);
}

static void alone_never_joins_a_batch_that_has_begun(void **state)
{
	(void)state;
	struct batch *batch = batch_new(8);
	struct batch_item items[] = {make_item(1, 1), make_item(2, 2), make_item(2, 0)}, *taken[8];
	add(batch, items, 2);
	assert_int_equal(batch_take(batch, taken, 8), 2);
	batch_retry_alone(batch, &items[0]);
	add(batch, &items[2], 1);
	batch_finish(batch, &items[1]); /* its heir arrived first: it is now ahead of the one that goes alone */
	assert_int_equal(batch_take(batch, taken, 8), 1);
	assert_ptr_equal(taken[0], &items[2]);
	assert_int_equal(batch_take(batch, taken, 8), 1);
	assert_ptr_equal(taken[0], &items[0]);
	batch_free(batch);
}

static void followers_are_taken_out_in_order(void **state)
{
	(void)state;
	struct batch *batch = batch_new(8);
	struct batch_item items[] = {make_item(1, 1), make_item(1, 2), make_item(1, 3), make_item(1, 4)}, *taken[8];
	add(batch, items, 3);
	assert_int_equal(batch_take(batch, taken, 8), 1);
	assert_ptr_equal(batch_take_follower(batch, &items[0]), &items[1]);
	assert_ptr_equal(batch_take_follower(batch, &items[0]), &items[2]);
	assert_null(batch_take_follower(batch, &items[0]));
	assert_int_equal(batch_count(batch), 1);
	add(batch, &items[3], 1); /* the line goes on working after it was emptied */
	batch_finish(batch, &items[0]);
	assert_int_equal(batch_take(batch, taken, 8), 1);
	assert_ptr_equal(taken[0], &items[3]);
	batch_finish(batch, &items[3]);
	assert_int_equal(batch_count(batch), 0);
	batch_free(batch);
}

static void the_overdue_leave_oldest_first_but_not_those_under_way(void **state)
{
	(void)state;
	struct batch *batch = batch_new(8);
	struct batch_item items[] = {make_item(1, 1), make_item(2, 5), make_item(3, 6), make_item(2, 7),
				     make_item(4, 9)};
	struct batch_item *taken[8];
	add(batch, items, 5);
	assert_int_equal(batch_take(batch, taken, 1), 1);
	assert_null(batch_take_overdue(batch, 5));
	assert_ptr_equal(batch_take_overdue(batch, 9), &items[1]);
	assert_ptr_equal(batch_take_overdue(batch, 9), &items[2]);
	assert_ptr_equal(batch_take_overdue(batch, 9), &items[3]);
	assert_null(batch_take_overdue(batch, 9));
	assert_int_equal(batch_count(batch), 2);
	assert_true(batch_oldest_ms(batch) == 9);
	batch_free(batch);
}

static void an_heir_does_not_hide_who_waits_longer(void **state)
{
	(void)state;
	struct batch *batch = batch_new(8);
	struct batch_item items[] = {make_item(1, 0), make_item(2, 100), make_item(1, 2900), make_item(3, 3000)};
	struct batch_item *taken[8];
	add(batch, items, 1);
	assert_int_equal(batch_take(batch, taken, 8), 1);
	add(batch, items + 1, 3);
	batch_finish(batch, &items[0]);
	assert_true(batch_oldest_ms(batch) == 100);
	assert_ptr_equal(batch_take_overdue(batch, 200), &items[1]);
	assert_int_equal(batch_take(batch, taken, 8), 2);
	assert_ptr_equal(taken[0], &items[2]);
	assert_ptr_equal(taken[1], &items[3]);
	struct batch_item last = make_item(5, 4000); /* the end of the queue is still its end */
	add(batch, &last, 1);
	assert_true(batch_oldest_ms(batch) == 4000);
	batch_free(batch);
}

static void who_retries_does_not_hide_who_waits_longer(void **state)
{
	(void)state;
	struct batch *batch = batch_new(8);
	struct batch_item items[] = {make_item(1, 1), make_item(2, 5), make_item(1, 2)}, *taken[8];
	add(batch, items, 2);
	assert_int_equal(batch_take(batch, taken, 8), 2);
	add(batch, &items[2], 1);
	batch_finish(batch, &items[0]);
	batch_retry_alone(batch, &items[1]);
	assert_true(batch_oldest_ms(batch) == 2);
	assert_ptr_equal(batch_take_overdue(batch, 3), &items[2]);
	assert_int_equal(batch_take(batch, taken, 8), 1);
	assert_ptr_equal(taken[0], &items[1]);
	batch_free(batch);
}

/* --- The rules of batch.h under random work --- */

enum where { OUT, INSIDE, UNDER_WAY };

#define ITEMS 64U
#define KEYS 12U
#define CAPACITY 40U

struct model {
	struct batch *batch;
	struct batch_item items[ITEMS];
	enum where where[ITEMS];
	unsigned key[ITEMS];
	uint64_t order[ITEMS]; /* of entering */
	uint64_t now;
	size_t inside;
};

static unsigned draw(unsigned bound)
{
	static uint32_t seed = 7;
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % bound;
}

static size_t index_of(const struct model *model, const struct batch_item *item)
{
	assert_true(item >= model->items && item < model->items + ITEMS);
	return (size_t)(item - model->items);
}

/* The first of its key still inside or under way. */
static size_t first_of_key(const struct model *model, unsigned key)
{
	size_t first = ITEMS;
	for (size_t i = 0; i < ITEMS; i++)
		if (model->where[i] != OUT && model->key[i] == key &&
		    (first == ITEMS || model->order[i] < model->order[first]))
			first = i;
	return first;
}

static void leave(struct model *model, size_t i)
{
	assert_int_not_equal(model->where[i], OUT);
	model->where[i] = OUT;
	model->inside--;
	memset(&model->items[i], 0x77, sizeof(model->items[i])); /* its owner may reuse it at once */
}

static void model_add(struct model *model)
{
	size_t i = draw(ITEMS);
	if (model->where[i] != OUT)
		return;
	model->key[i] = draw(KEYS);
	model->now += draw(3);
	model->items[i] = make_item(model->key[i] % 5 + (model->key[i] << 8), model->now);
	enum result result = batch_add(model->batch, &model->items[i]);
	assert_int_equal(result, model->inside < CAPACITY ? RESULT_OK : RESULT_UNAVAILABLE);
	if (result != RESULT_OK)
		return;
	static uint64_t entered;
	model->where[i] = INSIDE;
	model->order[i] = ++entered;
	model->inside++;
}

static void model_take(struct model *model)
{
	struct batch_item *taken[16];
	size_t max = 1 + draw(16), count = batch_take(model->batch, taken, max);
	assert_true(count <= max);
	for (size_t j = 0; j < count; j++) {
		size_t i = index_of(model, taken[j]);
		assert_int_equal(model->where[i], INSIDE);
		assert_int_equal(first_of_key(model, model->key[i]), i); /* the order of its line; none under way */
		assert_true(!taken[j]->alone || count == 1);
		model->where[i] = UNDER_WAY;
	}
}

static void model_settle(struct model *model)
{
	size_t i = draw(ITEMS);
	if (model->where[i] != UNDER_WAY)
		return;
	if (draw(4) == 0) {
		batch_retry_alone(model->batch, &model->items[i]);
		model->where[i] = INSIDE;
		return;
	}
	if (draw(4) == 0) {
		struct batch_item *follower = batch_take_follower(model->batch, &model->items[i]);
		model->where[i] = OUT; /* to look behind it */
		size_t expected = first_of_key(model, model->key[i]);
		model->where[i] = UNDER_WAY;
		if (expected == ITEMS) {
			assert_null(follower);
		} else {
			assert_int_equal(index_of(model, follower), expected);
			leave(model, expected);
		}
	}
	batch_finish(model->batch, &model->items[i]);
	leave(model, i);
}

static void model_expire(struct model *model)
{
	uint64_t limit = model->now > 40 ? model->now - 40 : 0;
	struct batch_item *item;
	while ((item = batch_take_overdue(model->batch, limit)) != NULL) {
		size_t i = index_of(model, item);
		assert_int_equal(model->where[i], INSIDE);
		assert_int_equal(first_of_key(model, model->key[i]), i);
		assert_true(item->arrived_ms < limit);
		leave(model, i);
	}
}

static void model_check(const struct model *model)
{
	assert_int_equal(batch_count(model->batch), model->inside);
	uint64_t oldest = UINT64_MAX;
	for (size_t i = 0; i < ITEMS; i++)
		if (model->where[i] == INSIDE && first_of_key(model, model->key[i]) == i &&
		    model->items[i].arrived_ms < oldest)
			oldest = model->items[i].arrived_ms;
	assert_int_equal(batch_has_queued(model->batch), oldest != UINT64_MAX);
}

static void any_order_of_calls_keeps_the_rules(void **state)
{
	(void)state;
	static struct model model;
	model.batch = batch_new(CAPACITY);
	model.now = 1;
	for (int round = 0; round < 300000; round++) {
		switch (draw(8)) {
		case 0:
			model_take(&model);
			break;
		case 1:
		case 2:
		case 3:
			model_settle(&model);
			break;
		case 4:
			if (draw(20) == 0)
				model_expire(&model);
			break;
		default:
			model_add(&model);
		}
		model_check(&model);
	}
	/* Everybody gets out. */
	for (int round = 0; model.inside > 0; round++) {
		assert_true(round < 100000);
		model_take(&model);
		model_settle(&model);
	}
	model_check(&model);
	batch_free(model.batch);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_empty_batcher_gives_nothing),
	    cmocka_unit_test(different_keys_leave_together_in_order),
	    cmocka_unit_test(one_key_leaves_one_at_a_time),
	    cmocka_unit_test(the_key_is_all_of_its_bytes),
	    cmocka_unit_test(a_full_batcher_refuses),
	    cmocka_unit_test(who_retries_goes_alone_and_first),
	    cmocka_unit_test(alone_never_joins_a_batch_that_has_begun),
	    cmocka_unit_test(followers_are_taken_out_in_order),
	    cmocka_unit_test(the_overdue_leave_oldest_first_but_not_those_under_way),
	    cmocka_unit_test(who_retries_does_not_hide_who_waits_longer),
	    cmocka_unit_test(an_heir_does_not_hide_who_waits_longer),
	    cmocka_unit_test(any_order_of_calls_keeps_the_rules),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
