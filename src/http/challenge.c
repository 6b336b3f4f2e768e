/* challenge.c: the two request functions of schema otp, as batches: what goes into the call and what comes out. */
#include "http/challenge.h"

#include <string.h>

#include "db/db_rows.h"

static const struct challenge_ask *ask_of(const struct batch_item *item)
{
	return (const struct challenge_ask *)item;
}

static const struct challenge_guess *guess_of(const struct batch_item *item)
{
	return (const struct challenge_guess *)item;
}

void challenge_encode_asks(struct db_params *params, struct batch_item *const *items, size_t count,
			   const struct challenge_terms *terms)
{
	db_params_reset(params);
	db_array_begin(params, DB_UUID);
	for (size_t i = 0; i < count; i++)
		db_array_bytes(params, ask_of(items[i])->id, TOKEN_ID_BYTES);
	db_array_end(params);
	db_array_begin(params, DB_TEXT);
	for (size_t i = 0; i < count; i++)
		db_array_text(params, ask_of(items[i])->email);
	db_array_end(params);
	db_array_begin(params, DB_TEXT);
	for (size_t i = 0; i < count; i++)
		db_array_text(params, ask_of(items[i])->recipient);
	db_array_end(params);
	db_array_begin(params, DB_TEXT);
	for (size_t i = 0; i < count; i++)
		db_array_text(params, ask_of(items[i])->mailbox);
	db_array_end(params);
	db_array_begin(params, DB_BYTEA);
	for (size_t i = 0; i < count; i++)
		db_array_bytes(params, ask_of(items[i])->mac, CODE_MAC_BYTES);
	db_array_end(params);
	db_add_smallint(params, terms->mac_key);
	db_array_begin(params, DB_BYTEA);
	for (size_t i = 0; i < count; i++)
		db_array_bytes(params, ask_of(items[i])->sealed, SEAL_BYTES);
	db_array_end(params);
	db_add_smallint(params, terms->mail_key);
	db_array_begin(params, DB_TEXT);
	for (size_t i = 0; i < count; i++)
		db_array_text(params, ask_of(items[i])->locale);
	db_array_end(params);
	db_add_int(params, terms->lifetime_seconds);
	db_add_int(params, terms->max_attempts);
	db_add_int(params, terms->resend_seconds);
	db_add_int(params, terms->sends_per_hour);
	db_add_int(params, terms->sends_per_day);
}

/* The index of the request that a row answers. */
static enum result read_ordinal(const struct pg_result *rows, size_t row, size_t count, size_t *i)
{
	int32_t ordinal = 0;
	enum result result = db_get_int(rows, row, 0, &ordinal);

	if (result != RESULT_OK || ordinal < 1 || (size_t)ordinal > count)
		return RESULT_FAULT;
	*i = (size_t)ordinal - 1;
	return RESULT_OK;
}

enum result challenge_decode_asks(const struct pg_result *rows, size_t count, int *retry_after)
{
	if (db_rows_count(rows) != count)
		return RESULT_FAULT;
	for (size_t i = 0; i < count; i++)
		retry_after[i] = -1;
	for (size_t row = 0; row < count; row++) {
		int32_t seconds = 0;
		size_t i = 0;

		if (read_ordinal(rows, row, count, &i) != RESULT_OK ||
		    db_get_int(rows, row, 1, &seconds) != RESULT_OK || seconds < 0 || retry_after[i] >= 0)
			return RESULT_FAULT;
		retry_after[i] = seconds;
	}
	return RESULT_OK;
}

void challenge_encode_guesses(struct db_params *params, struct batch_item *const *items, size_t count, short mac_key,
			      short previous_key)
{
	db_params_reset(params);
	db_array_begin(params, DB_UUID);
	for (size_t i = 0; i < count; i++)
		db_array_bytes(params, guess_of(items[i])->id, TOKEN_ID_BYTES);
	db_array_end(params);
	db_array_begin(params, DB_BYTEA);
	for (size_t i = 0; i < count; i++)
		db_array_bytes(params, guess_of(items[i])->is_possible ? guess_of(items[i])->mac : NULL,
			       CODE_MAC_BYTES);
	db_array_end(params);
	db_add_smallint(params, mac_key);
	if (previous_key < 0) {
		db_add_null(params);
		db_add_null(params);
		return;
	}
	db_array_begin(params, DB_BYTEA);
	for (size_t i = 0; i < count; i++)
		db_array_bytes(params, guess_of(items[i])->is_possible ? guess_of(items[i])->previous_mac : NULL,
			       CODE_MAC_BYTES);
	db_array_end(params);
	db_add_smallint(params, previous_key);
}

/* The words of otp.validate are the slugs of the answers, but for "valid" and "unknown_key". */
static enum result read_verdict(const char *text, enum http_outcome *verdict)
{
	static const enum http_outcome refusals[] = {HTTP_WRONG_PASSWORD, HTTP_EXPIRED, HTTP_USED, HTTP_EXHAUSTED,
						     HTTP_UNKNOWN_TOKEN};

	if (strcmp(text, "valid") == 0) {
		*verdict = HTTP_OK;
		return RESULT_OK;
	}
	if (strcmp(text, "unknown_key") == 0) {
		*verdict = HTTP_UNAVAILABLE;
		return RESULT_OK;
	}
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		if (strcmp(text, http_outcome_slug(refusals[i])) == 0) {
			*verdict = refusals[i];
			return RESULT_OK;
		}
	}
	return RESULT_FAULT;
}

static enum result read_answer(const struct pg_result *rows, size_t row, struct challenge_answer *answer)
{
	struct challenge_answer read = {.email = NULL};
	int32_t attempts_left = 0;
	int32_t unknown_key = 0;

	if (db_is_null(rows, row, 1) || read_verdict(db_get_text(rows, row, 1), &read.verdict) != RESULT_OK)
		return RESULT_FAULT;
	if (read.verdict == HTTP_WRONG_PASSWORD && db_get_int(rows, row, 2, &attempts_left) != RESULT_OK)
		return RESULT_FAULT;
	if (read.verdict == HTTP_UNAVAILABLE && db_get_int(rows, row, 4, &unknown_key) != RESULT_OK)
		return RESULT_FAULT;
	if (read.verdict == HTTP_OK) {
		if (db_is_null(rows, row, 3))
			return RESULT_FAULT;
		read.email = db_get_text(rows, row, 3);
	}
	read.attempts_left = attempts_left;
	read.unknown_key = unknown_key;
	*answer = read;
	return RESULT_OK;
}

enum result challenge_decode_guesses(const struct pg_result *rows, size_t count, struct challenge_answer *answers)
{
	if (db_rows_count(rows) != count)
		return RESULT_FAULT;
	for (size_t i = 0; i < count; i++)
		answers[i].attempts_left = -1;
	for (size_t row = 0; row < count; row++) {
		size_t i = 0;

		if (read_ordinal(rows, row, count, &i) != RESULT_OK || answers[i].attempts_left >= 0 ||
		    read_answer(rows, row, &answers[i]) != RESULT_OK)
			return RESULT_FAULT;
	}
	return RESULT_OK;
}
