/* guess.c: a token and what its holder wants of it, a code to be evaluated first of all, as calls of the database. */
#include "http/guess.h"

#include <string.h>

#include "db/db_rows.h"

static const struct guess *guess_of(const struct batch_item *item)
{
	return (const struct guess *)item;
}

/* --- Out --- */

static const unsigned char *read_id(const struct batch_item *item)
{
	return guess_of(item)->id;
}

static const char *read_application(const struct batch_item *item)
{
	return guess_of(item)->application;
}

static const char *read_purpose(const struct batch_item *item)
{
	return guess_of(item)->purpose;
}

static const unsigned char *read_context(const struct batch_item *item)
{
	return guess_of(item)->context;
}

static const unsigned char *read_mac(const struct batch_item *item)
{
	return guess_of(item)->digits > 0 ? guess_of(item)->mac : NULL;
}

static const unsigned char *read_previous_mac(const struct batch_item *item)
{
	return guess_of(item)->digits > 0 ? guess_of(item)->previous_mac : NULL;
}

static void encode_guesses(struct db_params *params, struct batch_item *const *items, size_t count,
			   const struct guess_keys *keys)
{
	challenge_add_texts(params, items, count, read_purpose);
	challenge_add_bytes(params, items, count, read_context, CODE_CONTEXT_BYTES);
	db_array_begin(params, DB_INT4);
	for (size_t i = 0; i < count; i++)
		db_array_int(params, guess_of(items[i])->digits);
	db_array_end(params);
	challenge_add_bytes(params, items, count, read_mac, CODE_MAC_BYTES);
	db_add_smallint(params, keys->newest);
	if (keys->previous < 0) {
		db_add_null(params);
		db_add_null(params);
		return;
	}
	challenge_add_bytes(params, items, count, read_previous_mac, CODE_MAC_BYTES);
	db_add_smallint(params, keys->previous);
}

void guess_encode(struct db_params *params, struct batch_item *const *items, size_t count,
		  const struct guess_keys *keys)
{
	db_params_reset(params);
	challenge_add_ids(params, items, count, read_id);
	challenge_add_texts(params, items, count, read_application);
	if (items[0]->call == GUESS_VALIDATE)
		encode_guesses(params, items, count, keys);
}

/* --- Back --- */

static enum result read_flag(const struct pg_result *rows, size_t row, int column, bool *flag)
{
	int32_t value = 0;
	enum result result = db_get_int(rows, row, column, &value);

	*flag = value != 0;
	return result;
}

static enum result read_judged(void *context, const struct pg_result *rows, size_t row, size_t i)
{
	struct guess_answer *answer = (struct guess_answer *)context + i;
	int32_t number = 0;
	enum result result = challenge_verdict(rows, row, 1, "valid", &answer->verdict);

	if (result != RESULT_OK)
		return result;
	if (answer->verdict == HTTP_WRONG_PASSWORD || answer->verdict == HTTP_UNAVAILABLE)
		result = db_get_int(rows, row, 2, &number);
	answer->number = number;
	if (answer->verdict != HTTP_OK)
		return result;
	answer->email = db_get_text_or_null(rows, row, 3);
	answer->mailbox = db_get_text_or_null(rows, row, 4);
	answer->purpose = db_get_text_or_null(rows, row, 5);
	return answer->email != NULL && answer->mailbox != NULL ? read_flag(rows, row, 6, &answer->is_test)
								: RESULT_FAULT;
}

static enum result read_revoked(void *context, const struct pg_result *rows, size_t row, size_t i)
{
	struct guess_answer *answer = (struct guess_answer *)context + i;

	return challenge_verdict(rows, row, 1, "revoked", &answer->verdict);
}

static enum result read_delivery(void *context, const struct pg_result *rows, size_t row, size_t i)
{
	struct guess_answer *answer = (struct guess_answer *)context + i;
	int32_t attempts = 0;

	answer->state = db_get_text(rows, row, 1);
	if (answer->state[0] == '\0')
		return RESULT_FAULT;
	if (strcmp(answer->state, http_outcome_slug(HTTP_UNKNOWN_TOKEN)) == 0) {
		answer->verdict = HTTP_UNKNOWN_TOKEN;
		return RESULT_OK;
	}
	answer->verdict = HTTP_OK;
	answer->sent_at = db_get_text_or_null(rows, row, 2);
	answer->reason = db_get_text_or_null(rows, row, 4);
	if (db_get_int(rows, row, 3, &attempts) != RESULT_OK)
		return RESULT_FAULT;
	answer->attempts = attempts;
	return read_flag(rows, row, 5, &answer->is_test);
}

enum result guess_decode(unsigned call, const struct pg_result *rows, size_t count, struct guess_answer *answers)
{
	for (size_t i = 0; i < count; i++)
		answers[i] = (struct guess_answer){.verdict = HTTP_INTERNAL};
	switch ((enum guess_call)call) {
	case GUESS_VALIDATE:
		return challenge_read_rows(rows, count, answers, read_judged);
	case GUESS_REVOKE:
		return challenge_read_rows(rows, count, answers, read_revoked);
	case GUESS_DELIVERY:
		return challenge_read_rows(rows, count, answers, read_delivery);
	}
	return RESULT_FAULT;
}
