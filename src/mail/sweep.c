/* sweep.c: the scheduled deletion of what has expired, in bounded batches, and the end of mails that come too late. */
#include "mail/sweep.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "db/db_wait.h"
#include "otp/token.h"

#define CONNECT_MS 5000
#define QUOTA_BLOCKS 256  /* of 8 KiB, per sweep */
#define QUEUE_HEAD 100000 /* mails that are due, per sweep */

struct sweep {
	struct sweep_settings settings;
	struct db *db;
	struct db_params *params;
	unsigned char after[TOKEN_ID_BYTES]; /* the last id looked at; {0}: none yet */
	int32_t quota_block;                 /* where the quota table is looked at next */
	long long deleted;
	long long quota_deleted;
};

enum { EXPIRE, SWEEP, SWEEP_QUOTA };

static const struct db_statement statements[] = {
    [EXPIRE] = {"expire_mail", "select otp.expire_mail($1)"},
    [SWEEP] = {"sweep", "select deleted, last from otp.sweep($1, $2, $3)"},
    [SWEEP_QUOTA] = {"sweep_quota", "select deleted, next_block::integer from otp.sweep_quota($1::integer, $2)"},
    {NULL, NULL},
};

static const struct db_client client = {"otp-worker", db_session_background, statements};

struct sweep *sweep_new(struct loop *loop, const struct sweep_settings *settings)
{
	struct sweep *sweep = calloc(1, sizeof(*sweep));

	if (sweep == NULL)
		return NULL;
	sweep->settings = *settings;
	sweep->params = db_params_new();
	sweep->db = db_new(loop, settings->database_url, &client);
	if (sweep->params == NULL || sweep->db == NULL) {
		sweep_free(sweep);
		return NULL;
	}
	return sweep;
}

void sweep_free(struct sweep *sweep)
{
	if (sweep == NULL)
		return;
	db_free(sweep->db);
	db_params_free(sweep->params);
	free(sweep);
}

void sweep_begin(struct sweep *sweep)
{
	memset(sweep->after, 0, sizeof(sweep->after));
	sweep->deleted = 0;
	sweep->quota_deleted = 0;
}

/* A claim does this as well, but there may be nobody who claims. */
static enum result expire_mails(struct sweep *sweep)
{
	struct pg_result *rows = NULL;
	enum result result;

	db_params_reset(sweep->params);
	db_add_int(sweep->params, QUEUE_HEAD);
	result = db_call(sweep->db, EXPIRE, sweep->params, &rows);
	if (result == RESULT_OK)
		db_rows_free(rows);
	return result;
}

/* The last id that was looked at; null: none is left. */
static enum result read_last(struct sweep *sweep, const struct pg_result *rows, bool *has_ended)
{
	*has_ended = db_is_null(rows, 0, 1);
	return *has_ended ? RESULT_OK : db_copy_bytes(rows, 0, 1, sweep->after, sizeof(sweep->after));
}

static enum result sweep_challenges(struct sweep *sweep, bool *has_ended)
{
	struct pg_result *rows = NULL;
	int32_t deleted = 0;
	enum result result;

	db_params_reset(sweep->params);
	db_add_uuid(sweep->params, sweep->after);
	db_add_int(sweep->params, sweep->settings.retention_seconds);
	db_add_int(sweep->params, sweep->settings.batch);
	result = db_call(sweep->db, SWEEP, sweep->params, &rows);
	if (result != RESULT_OK)
		return result;
	result = db_get_int(rows, 0, 0, &deleted);
	if (result == RESULT_OK)
		result = read_last(sweep, rows, has_ended);
	db_rows_free(rows);
	sweep->deleted += deleted;
	return result;
}

/* Looks through the next blocks of the quota table; wraps around. */
static enum result sweep_quotas(struct sweep *sweep)
{
	struct pg_result *rows = NULL;
	int32_t deleted = 0;
	int32_t next = 0;
	enum result result;

	db_params_reset(sweep->params);
	db_add_int(sweep->params, sweep->quota_block);
	db_add_int(sweep->params, QUOTA_BLOCKS);
	result = db_call(sweep->db, SWEEP_QUOTA, sweep->params, &rows);
	if (result != RESULT_OK)
		return result;
	result = db_get_int(rows, 0, 0, &deleted);
	if (result == RESULT_OK)
		result = db_get_int(rows, 0, 1, &next);
	db_rows_free(rows);
	if (result == RESULT_OK) {
		sweep->quota_block = next;
		sweep->quota_deleted += deleted;
	}
	return result;
}

static void report(const struct sweep *sweep, enum result result)
{
	bool has_deleted = sweep->deleted + sweep->quota_deleted > 0;

	log_event(result != RESULT_OK ? LOG_WARNING
		  : has_deleted       ? LOG_INFO
				      : LOG_DEBUG,
		  "sweep", LOG_TEXT("result", result_name(result)), LOG_NUMBER("deleted", sweep->deleted),
		  LOG_NUMBER("quota_deleted", sweep->quota_deleted));
}

enum result sweep_go_on(struct sweep *sweep)
{
	bool has_ended = false;
	enum result result = db_connect(sweep->db, CONNECT_MS);

	if (result == RESULT_OK)
		result = sweep_challenges(sweep, &has_ended);
	if (result == RESULT_OK && !has_ended)
		return RESULT_OK;
	if (result == RESULT_OK)
		result = expire_mails(sweep);
	if (result == RESULT_OK)
		result = sweep_quotas(sweep);
	report(sweep, result);
	return result == RESULT_OK ? RESULT_LIMITED : result;
}
