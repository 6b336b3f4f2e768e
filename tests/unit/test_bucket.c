/* test_bucket.c: so many an hour and no more, by key, whoever else asks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>

#include "otp/bucket.h"

#define SECOND 1000U
#define HOUR (3600U * SECOND)

static void an_hour_holds_what_it_says(void **state)
{
	struct bucket bucket = {0};
	uint64_t now_ms = 12345;

	(void)state;
	for (int i = 0; i < 60; i++)
		assert_int_equal(bucket_take(&bucket, 60, now_ms), 0);
	assert_in_range(bucket_take(&bucket, 60, now_ms), 60, 61);
	assert_in_range(bucket_take(&bucket, 60, now_ms + 20 * SECOND), 40, 41);
	/* What was refused took nothing. */
	assert_int_equal(bucket_take(&bucket, 60, now_ms + 61 * SECOND), 0);
	assert_in_range(bucket_take(&bucket, 60, now_ms + 61 * SECOND), 59, 60);
	for (int i = 0; i < 60; i++)
		assert_int_equal(bucket_take(&bucket, 60, now_ms + 3 * HOUR), 0);
	assert_in_range(bucket_take(&bucket, 60, now_ms + 3 * HOUR), 60, 61);
}

static void the_answer_can_be_waited_for(void **state)
{
	static const int rates[] = {1, 2, 7, 59, 3600, 100000};

	(void)state;
	for (size_t i = 0; i < sizeof(rates) / sizeof(rates[0]); i++) {
		struct bucket bucket = {0};
		uint64_t now_ms = HOUR;
		int wait = 0, taken = 0;

		while ((wait = bucket_take(&bucket, rates[i], now_ms)) == 0)
			taken++;
		assert_int_equal(taken, rates[i]);
		now_ms += (uint64_t)wait * SECOND;
		assert_int_equal(bucket_take(&bucket, rates[i], now_ms), 0);
	}
}

static void none_is_no_limit(void **state)
{
	struct bucket bucket = {0};

	(void)state;
	for (int i = 0; i < 100000; i++)
		assert_int_equal(bucket_take(&bucket, 0, 1), 0);
}

static void a_key_has_its_own(void **state)
{
	struct buckets *buckets = buckets_new();
	char key[32];

	(void)state;
	assert_non_null(buckets);
	for (int i = 0; i < 500; i++) {
		(void)snprintf(key, sizeof(key), "host%d.example", i);
		assert_int_equal(buckets_take(buckets, key, 1, HOUR), 0);
		assert_int_not_equal(buckets_take(buckets, key, 1, HOUR), 0);
	}
	(void)snprintf(key, sizeof(key), "host%d.example", 0);
	assert_int_not_equal(buckets_take(buckets, key, 1, HOUR), 0);
	buckets_free(buckets);
}

static void other_keys_refill_nobody(void **state)
{
	struct buckets *buckets = buckets_new();
	char key[32];

	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(buckets_take(buckets, "victim.example", 10, HOUR), 0);
	for (int i = 0; i < 1000000; i++) {
		(void)snprintf(key, sizeof(key), "host%d.example", i);
		(void)buckets_take(buckets, key, 10, HOUR);
	}
	assert_int_not_equal(buckets_take(buckets, "victim.example", 10, HOUR), 0);
	buckets_free(buckets);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_hour_holds_what_it_says), cmocka_unit_test(the_answer_can_be_waited_for),
	    cmocka_unit_test(none_is_no_limit),           cmocka_unit_test(a_key_has_its_own),
	    cmocka_unit_test(other_keys_refill_nobody),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
