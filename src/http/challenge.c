/* challenge.c: what all calls about challenges have in common: arrays out, a row for each request back. */
#include "http/challenge.h"

#include <stdbool.h>
#include <string.h>

#include "db/db_rows.h"
#include "otp/token.h"

#define ROWS_MAX 1024U /* no batch is larger: BATCH_MAX */

void challenge_add_texts(struct db_params *params, struct batch_item *const *items, size_t count,
			 const char *(*read)(const struct batch_item *item))
{
	db_array_begin(params, DB_TEXT);
	for (size_t i = 0; i < count; i++)
		db_array_text(params, read(items[i]));
	db_array_end(params);
}

void challenge_add_bytes(struct db_params *params, struct batch_item *const *items, size_t count,
			 const unsigned char *(*read)(const struct batch_item *item), size_t length)
{
	db_array_begin(params, DB_BYTEA);
	for (size_t i = 0; i < count; i++)
		db_array_bytes(params, read(items[i]), length);
	db_array_end(params);
}

void challenge_add_ids(struct db_params *params, struct batch_item *const *items, size_t count,
		       const unsigned char *(*read)(const struct batch_item *item))
{
	db_array_begin(params, DB_UUID);
	for (size_t i = 0; i < count; i++)
		db_array_bytes(params, read(items[i]), TOKEN_ID_BYTES);
	db_array_end(params);
}

enum result challenge_read_rows(const struct pg_result *rows, size_t count, void *context,
				enum result (*read)(void *context, const struct pg_result *rows, size_t row, size_t i))
{
	bool is_read[ROWS_MAX];

	if (db_rows_count(rows) != count || count > ROWS_MAX)
		return RESULT_FAULT;
	memset(is_read, 0, count * sizeof(is_read[0]));
	for (size_t row = 0; row < count; row++) {
		int32_t ordinal = 0;
		size_t i;

		if (db_get_int(rows, row, 0, &ordinal) != RESULT_OK || ordinal < 1 || (size_t)ordinal > count)
			return RESULT_FAULT;
		i = (size_t)ordinal - 1;
		if (is_read[i] || read(context, rows, row, i) != RESULT_OK)
			return RESULT_FAULT;
		is_read[i] = true;
	}
	return RESULT_OK;
}

enum result challenge_verdict(const struct pg_result *rows, size_t row, int column, const char *success,
			      enum http_outcome *verdict)
{
	static const enum http_outcome refusals[] = {HTTP_WRONG_PASSWORD, HTTP_UNKNOWN_TOKEN, HTTP_EXPIRED,
						     HTTP_USED,           HTTP_EXHAUSTED,     HTTP_REVOKED,
						     HTTP_WRONG_PURPOSE,  HTTP_NOT_A_CODE};
	const char *word = db_get_text(rows, row, column);

	if (strcmp(word, success) == 0) {
		*verdict = HTTP_OK;
		return RESULT_OK;
	}
	if (strcmp(word, "unknown_key") == 0) {
		*verdict = HTTP_UNAVAILABLE;
		return RESULT_OK;
	}
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		if (strcmp(word, http_outcome_slug(refusals[i])) == 0) {
			*verdict = refusals[i];
			return RESULT_OK;
		}
	}
	return RESULT_FAULT;
}
