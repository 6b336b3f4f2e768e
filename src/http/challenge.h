/* challenge.h: what all calls about challenges have in common: arrays out, a row for each request back. */
#ifndef OTP_CHALLENGE_H
#define OTP_CHALLENGE_H

#include <stddef.h>

#include "base/result.h"
#include "db/db_params.h"
#include "http/batch.h"
#include "http/http.h"

struct pg_result;

/* A call of a function whose first argument is the array of ids: a batch, and one that goes again alone, which waits
   for a locked row just as long as another process needs for its batch. */
#define CHALLENGE_SQL(columns, function, others) "select ord, " columns " from otp." function "($1" others ")"
#define CHALLENGE_ALONE_SQL(columns, function, others)                                                              \
	"select ord, " columns " from (select set_config('lock_timeout', '50ms', true) as is_set) s, otp." function \
	"(case when is_set is not null then $1::uuid[] end" others ")"

/* Add an array with an element for each item. The reader gives an item's value; NULL: SQL null. */
void challenge_add_texts(struct db_params *params, struct batch_item *const *items, size_t count,
			 const char *(*read)(const struct batch_item *item));
void challenge_add_bytes(struct db_params *params, struct batch_item *const *items, size_t count,
			 const unsigned char *(*read)(const struct batch_item *item), size_t length);
void challenge_add_ids(struct db_params *params, struct batch_item *const *items, size_t count,
		       const unsigned char *(*read)(const struct batch_item *item));

/* Calls read for every row with the number of the request that it answers. RESULT_FAULT unless there is exactly one row
   for each of count requests and read takes it. */
OTP_MUST_CHECK enum result challenge_read_rows(const struct pg_result *rows, size_t count, void *context,
					       enum result (*read)(void *context, const struct pg_result *rows,
								   size_t row, size_t i));

/* The verdict in a column: the word for success, or a refusal, whose word is the slug of its answer; unknown_key is
   HTTP_UNAVAILABLE. RESULT_FAULT: another word; it must never pass for success. */
OTP_MUST_CHECK enum result challenge_verdict(const struct pg_result *rows, size_t row, int column, const char *success,
					     enum http_outcome *verdict);

#endif
