/* bucket.c: token buckets, kept by a keyed hash of their key, a few to a row. */
#include "otp/bucket.h"

#include <sodium.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define HOUR_MS 3600000.0
#define ROWS 1024U
#define ROW_BUCKETS 8U

/* --- One --- */

static double left_taken(const struct bucket *bucket, int per_hour, uint64_t now_ms)
{
	double left = bucket->taken - (double)(now_ms - bucket->at_ms) * per_hour / HOUR_MS;

	return left > 0.0 ? left : 0.0;
}

int bucket_take(struct bucket *bucket, int per_hour, uint64_t now_ms)
{
	double missing;

	if (per_hour == 0)
		return 0;
	bucket->taken = left_taken(bucket, per_hour, now_ms);
	bucket->at_ms = now_ms;
	missing = bucket->taken + 1.0 - per_hour;
	if (missing > 0.0)
		return (int)(missing * HOUR_MS / 1000.0 / per_hour) + 1;
	bucket->taken += 1.0;
	return 0;
}

/* --- By key --- */

struct keyed {
	uint64_t hash;
	struct bucket bucket;
};

struct buckets {
	unsigned char hash_key[crypto_shorthash_KEYBYTES]; /* nobody can aim at a row */
	struct keyed rows[ROWS][ROW_BUCKETS];
};

struct buckets *buckets_new(void)
{
	struct buckets *buckets = calloc(1, sizeof(*buckets));

	if (buckets != NULL)
		crypto_shorthash_keygen(buckets->hash_key);
	return buckets;
}

void buckets_free(struct buckets *buckets)
{
	free(buckets);
}

/* The one of that hash, or else the one that has taken least, emptied for it. */
static struct bucket *find(struct keyed row[static ROW_BUCKETS], uint64_t hash, int per_hour, uint64_t now_ms)
{
	struct keyed *least = row;

	for (struct keyed *one = row; one < row + ROW_BUCKETS; one++) {
		if (one->hash == hash)
			return &one->bucket;
		if (left_taken(&one->bucket, per_hour, now_ms) < left_taken(&least->bucket, per_hour, now_ms))
			least = one;
	}
	*least = (struct keyed){.hash = hash};
	return &least->bucket;
}

static struct bucket *find_key(struct buckets *buckets, const char *key, int per_hour, uint64_t now_ms)
{
	uint64_t hash = 0;

	crypto_shorthash((unsigned char *)&hash, (const unsigned char *)key, strlen(key), buckets->hash_key);
	return find(buckets->rows[hash % ROWS], hash, per_hour, now_ms);
}

int buckets_take(struct buckets *buckets, const char *key, int per_hour, uint64_t now_ms)
{
	return per_hour == 0 ? 0 : bucket_take(find_key(buckets, key, per_hour, now_ms), per_hour, now_ms);
}

void buckets_put_back(struct buckets *buckets, const char *key, int per_hour, uint64_t now_ms)
{
	struct bucket *bucket;

	if (per_hour == 0)
		return;
	bucket = find_key(buckets, key, per_hour, now_ms);
	bucket->taken = bucket->taken > 1.0 ? bucket->taken - 1.0 : 0.0;
}
