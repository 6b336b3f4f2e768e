/* bucket.h: token buckets: how many an hour, of one thing or by key in a fixed amount of memory. */
#ifndef OTP_BUCKET_H
#define OTP_BUCKET_H

#include <stddef.h>
#include <stdint.h>

/* Holds what an hour allows; what is taken comes back evenly. Zeroed: nothing was taken yet. */
struct bucket {
	double taken;
	uint64_t at_ms; /* of the last look */
};

/* Takes one. now_ms never goes back; per_hour 0: no limit. Returns 0, or the seconds after which there is one again. */
int bucket_take(struct bucket *bucket, int per_hour, uint64_t now_ms);

struct buckets;

/* NULL: out of memory. */
struct buckets *buckets_new(void);
void buckets_free(struct buckets *buckets);

/* As bucket_take, of the key's own bucket. When there are more keys than room, those that have taken least are
   forgotten first, so that nobody gets a full bucket by filling the table. */
int buckets_take(struct buckets *buckets, const char *key, int per_hour, uint64_t now_ms);

/* Puts back what was taken for nothing. */
void buckets_put_back(struct buckets *buckets, const char *key, int per_hour, uint64_t now_ms);

#endif
