/* outbox.c: the queue of mails in the database: claims under a lease, and settlements of what became of them. */
#include "mail/outbox.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "db/db_wait.h"
#include "mail/withdrawn.h"
#include "otp/application.h"
#include "otp/seal.h"

#define CONNECT_MS 5000
#define RETRY_UNREADABLE_SECONDS 60

struct outbox {
	struct db *db;
	struct db_params *params;
	const struct key_ring *keys;
	struct seal_opener opener[KEY_RING_MAX]; /* of each key */
	struct db_call exchange;
	bool is_claim;     /* what is under way also claims */
	size_t taken_back; /* of the mails that are being settled: their outcome stands */
	struct withdrawn withdrawn;
};

enum { EXCHANGE, SETTLE };

/* Columns of EXCHANGE. */
enum {
	LOST,
	ID,
	LEASE,
	RECIPIENT,
	LOCALE,
	SEALED,
	MAIL_KEY,
	CREATED_MS,
	EXPIRES_MS,
	ATTEMPTS,
	LEASE_MS,
	DOUBTS,
	CHALLENGE,
	APPLICATION,
	PURPOSE
};

static const struct db_statement statements[] = {
    /* What is claimed hangs on what was settled: mails that are released are due again for the claim. */
    [EXCHANGE] =
	{"exchange_mail",
	 "select lost, id, lease, recipient, locale, sealed, mail_key::integer, created_ms, expires_ms, attempts, "
	 "lease_ms, doubts, challenge, application, purpose"
	 " from (select count(*)::integer as lost from otp.settle_mail($1, $2, $3, $4, $5, $6, $7) where not settled) s"
	 " left join lateral otp.claim_mail(case when lost >= 0 then $8::integer end) on true"},
    [SETTLE] = {"settle_mail",
		"select count(*)::integer from otp.settle_mail($1, $2, $3, $4, $5, $6, $7) where not settled"},
    {NULL, NULL},
};

static const struct db_client client = {"otp-worker", db_session_background, statements};

static const char *const outcome_name[] = {
    [OUTBOX_SENT] = "sent",
    [OUTBOX_RETRY] = "retry",
    [OUTBOX_FAILED] = "failed",
    [OUTBOX_RELEASE] = "release",
};

const char *outbox_outcome_name(enum outbox_outcome outcome)
{
	return outcome_name[outcome];
}

/* A wake-up, or, with an id, a mail that was taken back. */
static void on_notification(void *context, const char *payload)
{
	struct outbox *outbox = context;

	withdrawn_add(&outbox->withdrawn, payload);
}

struct outbox *outbox_new(struct loop *loop, const char *database_url, const struct key_ring *keys)
{
	struct outbox *outbox = calloc(1, sizeof(*outbox));

	if (outbox == NULL)
		return NULL;
	outbox->keys = keys;
	for (size_t i = 0; i < keys->count; i++)
		seal_opener_init(&outbox->opener[i], keys->key[i]);
	outbox->params = db_params_new();
	outbox->db = db_new(loop, database_url, &client);
	if (outbox->params == NULL || outbox->db == NULL) {
		outbox_free(outbox);
		return NULL;
	}
	db_listen(outbox->db, "otp_mail", on_notification, outbox);
	return outbox;
}

void outbox_free(struct outbox *outbox)
{
	if (outbox == NULL)
		return;
	if (outbox->db != NULL)
		db_free(outbox->db);
	if (outbox->params != NULL)
		db_params_free(outbox->params);
	for (size_t i = 0; i < KEY_RING_MAX; i++)
		seal_opener_wipe(&outbox->opener[i]);
	free(outbox);
}

enum result outbox_connect(struct outbox *outbox)
{
	return db_connect(outbox->db, CONNECT_MS);
}

void outbox_wait(struct outbox *outbox, int timeout_ms)
{
	db_wait_notification(outbox->db, timeout_ms);
}

bool outbox_is_withdrawn(struct outbox *outbox, const struct outbox_mail *mail)
{
	(void)loop_round(db_loop(outbox->db), 0);
	return withdrawn_has(&outbox->withdrawn, mail->id);
}

void outbox_batch_wipe(struct outbox_batch *batch)
{
	explicit_bzero(batch->mails, batch->count * sizeof(*batch->mails));
	batch->count = 0;
}

/* --- Claims --- */

/* Opens the code with the key of that number. Our own words say why it cannot be. */
static enum result open_code(struct outbox *outbox, struct outbox_mail *mail, int key, const unsigned char *sealed,
			     size_t length)
{
	for (size_t i = 0; i < outbox->keys->count; i++) {
		if (outbox->keys->id[i] != key)
			continue;
		if (seal_opener_open(&outbox->opener[i], mail->code, sealed, length, mail->id) == RESULT_OK)
			return RESULT_OK;
		smtp_reply_say(&mail->reply, "the sealed code cannot be opened");
		return RESULT_INVALID;
	}
	smtp_reply_say(&mail->reply, "the key that the code was sealed to is not in KEY_DIR");
	return RESULT_INVALID;
}

static void log_unsendable(const struct outbox_mail *mail)
{
	char id[TOKEN_ID_TEXT + 1];

	token_id_write(mail->id, id);
	log_event(LOG_ERROR, "mail_not_sendable", LOG_TEXT("id", id), LOG_TEXT("outcome", outcome_name[mail->outcome]),
		  LOG_TEXT("reason", mail->reply.text));
}

void outbox_refuse(struct outbox_mail *mail, const char *reason)
{
	mail->is_sendable = false;
	mail->outcome = OUTBOX_FAILED;
	smtp_reply_say(&mail->reply, reason);
	log_unsendable(mail);
}

/* Whose mail it is, and what for. What is no name is nobody's name, so that nobody else's is used instead. */
static void read_names(const struct pg_result *rows, size_t row, struct outbox_mail *mail)
{
	if (db_is_null(rows, row, APPLICATION))
		memcpy(mail->application, APPLICATION_DEFAULT, sizeof(APPLICATION_DEFAULT));
	else if (db_copy_text(rows, row, APPLICATION, mail->application, sizeof(mail->application)) != RESULT_OK)
		mail->application[0] = '\0';
	if (db_copy_text(rows, row, PURPOSE, mail->purpose, sizeof(mail->purpose)) != RESULT_OK ||
	    !slug_is(mail->purpose, strlen(mail->purpose)))
		mail->purpose[0] = '\0';
}

/* The parts that may be wrong in a single row: such a mail gets its outcome here. */
static void read_content(struct outbox *outbox, const struct pg_result *rows, size_t row, int key,
			 struct outbox_mail *mail)
{
	size_t length = 0;
	const unsigned char *sealed = db_get_bytes(rows, row, SEALED, &length);

	if (db_copy_text(rows, row, LOCALE, mail->locale, sizeof(mail->locale)) != RESULT_OK)
		mail->locale[0] = '\0';
	read_names(rows, row, mail);
	/* What is mailed is what was counted: nothing is parsed anew. libesmtp filters nothing, so what is no such
	   address does not reach it, however it got into the table. */
	if (db_copy_text(rows, row, RECIPIENT, mail->recipient, sizeof(mail->recipient)) != RESULT_OK ||
	    !address_is_recipient(mail->recipient)) {
		outbox_refuse(mail, "the address cannot be mailed");
	} else if (open_code(outbox, mail, key, sealed, length) != RESULT_OK) {
		/* The key may come back; nothing is sent after the code's time anyway. */
		mail->outcome = OUTBOX_RETRY;
		mail->retry_seconds = RETRY_UNREADABLE_SECONDS;
		log_unsendable(mail);
	} else {
		mail->is_sendable = true;
		mail->outcome = OUTBOX_RELEASE;
	}
}

static enum result read_mail(struct outbox *outbox, const struct pg_result *rows, size_t row, struct outbox_mail *mail)
{
	int32_t attempts = 0;
	int32_t key = 0;

	memset(mail, 0, sizeof(*mail));
	if (db_copy_bytes(rows, row, ID, mail->id, sizeof(mail->id)) != RESULT_OK ||
	    db_copy_bytes(rows, row, LEASE, mail->lease, sizeof(mail->lease)) != RESULT_OK ||
	    db_copy_bytes(rows, row, CHALLENGE, mail->challenge, sizeof(mail->challenge)) != RESULT_OK ||
	    db_get_bigint(rows, row, CREATED_MS, &mail->created_ms) != RESULT_OK ||
	    db_get_bigint(rows, row, EXPIRES_MS, &mail->expires_ms) != RESULT_OK ||
	    db_get_int(rows, row, ATTEMPTS, &attempts) != RESULT_OK ||
	    db_get_int(rows, row, LEASE_MS, &mail->lease_ms) != RESULT_OK ||
	    db_get_int(rows, row, DOUBTS, &mail->doubts) != RESULT_OK ||
	    db_get_int(rows, row, MAIL_KEY, &key) != RESULT_OK)
		return RESULT_FAULT;
	mail->attempts = attempts;
	read_content(outbox, rows, row, key, mail);
	return RESULT_OK;
}

/* --- Settlements --- */

/* For how long the outcome has been known. */
static int32_t age_of(const struct outbox_mail *mail, int64_t now_ms)
{
	int64_t age_ms = mail->finished_ms == 0 ? 0 : now_ms - mail->finished_ms;

	return age_ms < 0 ? 0 : age_ms > INT32_MAX ? INT32_MAX : (int32_t)age_ms;
}

static void encode_settlement(struct outbox *outbox, const struct outbox_batch *batch)
{
	const struct outbox_mail *mails = batch->mails;
	struct db_params *params = outbox->params;
	int64_t now_ms = clock_wall_ms();

	outbox->taken_back = 0;
	for (size_t i = 0; i < batch->count; i++)
		outbox->taken_back += withdrawn_has(&outbox->withdrawn, mails[i].id);
	db_params_reset(params);
	db_array_begin(params, DB_UUID);
	for (size_t i = 0; i < batch->count; i++)
		db_array_bytes(params, mails[i].id, sizeof(mails[i].id));
	db_array_end(params);
	db_array_begin(params, DB_UUID);
	for (size_t i = 0; i < batch->count; i++)
		db_array_bytes(params, mails[i].lease, sizeof(mails[i].lease));
	db_array_end(params);
	db_array_begin(params, DB_TEXT);
	for (size_t i = 0; i < batch->count; i++)
		db_array_text(params, outcome_name[mails[i].outcome]);
	db_array_end(params);
	db_array_begin(params, DB_TEXT);
	for (size_t i = 0; i < batch->count; i++)
		db_array_text(params, mails[i].reply.text[0] != '\0' ? mails[i].reply.text : NULL);
	db_array_end(params);
	db_array_begin(params, DB_INT4);
	for (size_t i = 0; i < batch->count; i++)
		db_array_int(params, mails[i].retry_seconds);
	db_array_end(params);
	db_array_begin(params, DB_INT4);
	for (size_t i = 0; i < batch->count; i++)
		db_array_int(params, age_of(&mails[i], now_ms));
	db_array_end(params);
	db_array_begin(params, DB_INT4);
	for (size_t i = 0; i < batch->count; i++)
		db_array_int(params, mails[i].doubts);
	db_array_end(params);
}

/* A lease that somebody has taken away is no surprise. */
static size_t count_lost(const struct outbox *outbox, int32_t unsettled)
{
	return (size_t)unsettled > outbox->taken_back ? (size_t)unsettled - outbox->taken_back : 0;
}

enum result outbox_settle(struct outbox *outbox, const struct outbox_batch *batch, size_t *lost)
{
	struct pg_result *rows = NULL;
	int32_t unsettled = 0;
	enum result result;

	encode_settlement(outbox, batch);
	result = db_call(outbox->db, SETTLE, outbox->params, &rows);
	if (result != RESULT_OK)
		return result;
	result = db_get_int(rows, 0, 0, &unsettled);
	db_rows_free(rows);
	if (result == RESULT_OK)
		*lost = count_lost(outbox, unsettled);
	return result;
}

enum result outbox_exchange_begin(struct outbox *outbox, const struct outbox_batch *batch, size_t max)
{
	outbox->is_claim = max > 0;
	encode_settlement(outbox, batch);
	if (outbox->is_claim)
		db_add_int(outbox->params, (int32_t)max);
	return db_call_begin(outbox->db, outbox->is_claim ? EXCHANGE : SETTLE, outbox->params, &outbox->exchange);
}

enum result outbox_exchange_end(struct outbox *outbox, struct outbox_batch *batch, size_t *lost)
{
	struct pg_result *rows = NULL;
	int32_t unsettled = 0;
	enum result result = db_call_end(&outbox->exchange, &rows);
	size_t found;

	if (result != RESULT_OK)
		return result;
	outbox_batch_wipe(batch);
	found = !outbox->is_claim || db_is_null(rows, 0, ID) ? 0 : db_rows_count(rows);
	result = found > batch->size ? RESULT_FAULT : db_get_int(rows, 0, LOST, &unsettled);
	if (result == RESULT_OK)
		*lost = count_lost(outbox, unsettled);
	for (size_t i = 0; i < found && result == RESULT_OK; i++) {
		result = read_mail(outbox, rows, i, &batch->mails[i]);
		batch->count = i + 1;
	}
	if (result != RESULT_OK)
		outbox_batch_wipe(batch);
	db_rows_free(rows);
	return result;
}
