/* ask.c: a code to be made, for a new token or again for an old one, as calls of the database. */
#include "http/ask.h"

#include <string.h>

#include "db/db_rows.h"

static const struct ask *ask_of(const struct batch_item *item)
{
	return (const struct ask *)item;
}

/* --- Out --- */

static const unsigned char *read_id(const struct batch_item *item)
{
	return ask_of(item)->id;
}

static const unsigned char *read_mail_id(const struct batch_item *item)
{
	return ask_of(item)->mail_id;
}

static const char *read_email(const struct batch_item *item)
{
	return ask_of(item)->email;
}

static const char *read_recipient(const struct batch_item *item)
{
	return ask_of(item)->recipient;
}

static const char *read_mailbox(const struct batch_item *item)
{
	return ask_of(item)->mailbox;
}

static const char *read_ticket(const struct batch_item *item)
{
	return ask_of(item)->ticket;
}

static const char *read_purpose(const struct batch_item *item)
{
	return ask_of(item)->purpose;
}

static const unsigned char *read_context(const struct batch_item *item)
{
	return ask_of(item)->context;
}

static const unsigned char *read_mac(const struct batch_item *item)
{
	return ask_of(item)->mac;
}

static const unsigned char *read_sealed(const struct batch_item *item)
{
	return ask_of(item)->is_test ? NULL : ask_of(item)->sealed;
}

static const char *read_locale(const struct batch_item *item)
{
	return ask_of(item)->locale;
}

static const char *read_application(const struct batch_item *item)
{
	return ask_of(item)->terms->application;
}

static void add_codes(struct db_params *params, struct batch_item *const *items, size_t count,
		      const struct ask_terms *terms)
{
	challenge_add_bytes(params, items, count, read_mac, CODE_MAC_BYTES);
	db_add_smallint(params, terms->mac_key);
	challenge_add_bytes(params, items, count, read_sealed, SEAL_BYTES);
	db_add_smallint(params, terms->mail_key);
	challenge_add_texts(params, items, count, read_locale);
	db_add_text(params, terms->application);
}

static void add_limits(struct db_params *params, const struct ask_terms *terms)
{
	db_add_int(params, terms->resend_seconds);
	db_add_int(params, terms->sends_per_hour);
	db_add_int(params, terms->sends_per_day);
}

static void encode_generate(struct db_params *params, struct batch_item *const *items, size_t count,
			    const struct ask_terms *terms)
{
	challenge_add_texts(params, items, count, read_email);
	challenge_add_texts(params, items, count, read_recipient);
	challenge_add_texts(params, items, count, read_mailbox);
	challenge_add_texts(params, items, count, read_ticket);
	challenge_add_texts(params, items, count, read_purpose);
	challenge_add_bytes(params, items, count, read_context, CODE_CONTEXT_BYTES);
	add_codes(params, items, count, terms);
	db_add_smallint(params, (int16_t)terms->digits);
	db_add_int(params, terms->lifetime_seconds);
	db_add_int(params, terms->max_attempts);
	add_limits(params, terms);
}

static void encode_resend(struct db_params *params, struct batch_item *const *items, size_t count,
			  const struct ask_terms *terms)
{
	challenge_add_ids(params, items, count, read_mail_id);
	challenge_add_texts(params, items, count, read_ticket);
	add_codes(params, items, count, terms);
	db_add_int(params, terms->lifetime_seconds);
	add_limits(params, terms);
	db_add_int(params, terms->retention_seconds);
}

void ask_encode(struct db_params *params, struct batch_item *const *items, size_t count)
{
	const struct ask_terms *terms = ask_of(items[0])->terms;

	db_params_reset(params);
	challenge_add_ids(params, items, count, read_id);
	switch ((enum ask_call)items[0]->call) {
	case ASK_GENERATE:
		encode_generate(params, items, count, terms);
		break;
	case ASK_TERMS:
		challenge_add_texts(params, items, count, read_application);
		db_add_int(params, terms->retention_seconds);
		break;
	case ASK_RESEND:
		encode_resend(params, items, count, terms);
		break;
	case ASK_CALLS:
		break;
	}
}

/* --- Back --- */

static enum result read_retry_after(const struct pg_result *rows, size_t row, int column, struct ask_answer *answer)
{
	int32_t seconds = 0;

	if (db_get_int(rows, row, column, &seconds) != RESULT_OK || seconds < 0)
		return RESULT_FAULT;
	answer->retry_after = seconds;
	return RESULT_OK;
}

static enum result read_generated(void *context, const struct pg_result *rows, size_t row, size_t i)
{
	struct ask_answer *answer = (struct ask_answer *)context + i;
	enum result result = read_retry_after(rows, row, 1, answer);

	answer->verdict = answer->retry_after > 0 ? HTTP_LIMITED : HTTP_OK;
	return result;
}

static enum result read_resent(void *context, const struct pg_result *rows, size_t row, size_t i)
{
	struct ask_answer *answer = (struct ask_answer *)context + i;

	if (strcmp(db_get_text(rows, row, 1), http_outcome_slug(HTTP_LIMITED)) == 0) {
		answer->verdict = HTTP_LIMITED;
		return read_retry_after(rows, row, 2, answer);
	}
	return challenge_verdict(rows, row, 1, "stored", &answer->verdict);
}

static enum result read_terms(void *context, const struct pg_result *rows, size_t row, size_t i)
{
	struct ask_answer *answer = (struct ask_answer *)context + i;
	size_t length = CODE_CONTEXT_BYTES;
	int32_t digits = 0;
	int32_t is_test = 0;

	if (challenge_verdict(rows, row, 1, "ready", &answer->verdict) != RESULT_OK)
		return RESULT_FAULT;
	if (answer->verdict != HTTP_OK)
		return RESULT_OK;
	answer->mailbox = db_get_text_or_null(rows, row, 2);
	answer->locale = db_get_text_or_null(rows, row, 3);
	answer->purpose = db_get_text_or_null(rows, row, 4);
	if (!db_is_null(rows, row, 5))
		answer->context = db_get_bytes(rows, row, 5, &length);
	if (answer->mailbox == NULL || length != CODE_CONTEXT_BYTES || db_get_int(rows, row, 6, &digits) != RESULT_OK ||
	    digits < (int)CODE_MIN || digits > (int)CODE_MAX || db_get_int(rows, row, 7, &is_test) != RESULT_OK)
		return RESULT_FAULT;
	answer->digits = digits;
	answer->is_test = is_test != 0;
	return RESULT_OK;
}

enum result ask_decode(unsigned call, const struct pg_result *rows, size_t count, struct ask_answer *answers)
{
	for (size_t i = 0; i < count; i++)
		answers[i] = (struct ask_answer){.verdict = HTTP_INTERNAL};
	switch ((enum ask_call)call) {
	case ASK_GENERATE:
		return challenge_read_rows(rows, count, answers, read_generated);
	case ASK_TERMS:
		return challenge_read_rows(rows, count, answers, read_terms);
	case ASK_RESEND:
		return challenge_read_rows(rows, count, answers, read_resent);
	case ASK_CALLS:
		break;
	}
	return RESULT_FAULT;
}
