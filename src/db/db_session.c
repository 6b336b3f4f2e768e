/* db_session.c: what a program relies on in a session, and whether a new session has it. */
#include "db/db_session.h"

#include <stdio.h>

#include "db/db_rows.h"
#include "db/schema_version.h"

/* Operators are PostgreSQL's own, whatever lies in other schemas. */
const struct db_setting db_session_request[] = {
    {"search_path", "pg_catalog,pg_temp"},
    {"statement_timeout", "1500ms"},
    {"lock_timeout", "500ms"},
    {"idle_in_transaction_session_timeout", "5s"},
    {"synchronous_commit", "on"},
    {"jit", "off"},
    {NULL, NULL},
};

const struct db_setting db_session_background[] = {
    {"search_path", "pg_catalog,pg_temp"},
    {"statement_timeout", "10s"},
    {"lock_timeout", "2s"},
    {"idle_in_transaction_session_timeout", "5s"},
    {"synchronous_commit", "on"},
    {"jit", "off"},
    {NULL, NULL},
};

enum { CLOCK_MS, SCHEMA_VERSION, BACKEND_PID, SETTINGS };

void db_session_put_options(struct text *text, const struct db_setting *settings)
{
	for (; settings->name != NULL; settings++)
		text_printf(text, "-c %s=%s ", settings->name, settings->value);
}

void db_session_put_check(struct text *text, const struct db_setting *settings)
{
	text_put(
	    text,
	    "select (extract(epoch from clock_timestamp()) * 1000)::bigint, otp.schema_version(), pg_backend_pid(), "
	    "(true");
	for (; settings->name != NULL; settings++)
		text_printf(text, " and current_setting('%s') = '%s'", settings->name, settings->value);
	text_put(text, ")::integer");
}

void db_session_put_set(struct text *text, const struct db_setting *settings)
{
	text_put(text, "select 1");
	for (; settings->name != NULL; settings++)
		text_printf(text, ", set_config('%s', '%s', false)", settings->name, settings->value);
}

static enum result read_row(const struct pg_result *rows, struct db_session *session)
{
	int32_t has_settings = 0;

	if (db_rows_count(rows) != 1 || db_get_bigint(rows, 0, CLOCK_MS, &session->clock_ms) != RESULT_OK ||
	    db_get_int(rows, 0, SCHEMA_VERSION, &session->schema_version) != RESULT_OK ||
	    db_get_int(rows, 0, BACKEND_PID, &session->backend_pid) != RESULT_OK ||
	    db_get_int(rows, 0, SETTINGS, &has_settings) != RESULT_OK)
		return RESULT_FAULT;
	session->has_settings = has_settings != 0;
	return RESULT_OK;
}

enum result db_session_read(const struct pg_result *rows, struct db_session *session, struct db_session_flaw *flaw)
{
	if (read_row(rows, session) != RESULT_OK) {
		flaw->event = "database_schema_missing";
		(void)snprintf(flaw->reason, sizeof(flaw->reason),
			       "the database has no schema of otpd: run sql/migrate");
		return RESULT_INVALID;
	}
	if (session->schema_version < DB_SCHEMA_VERSION) {
		flaw->event = "database_schema_old";
		(void)snprintf(flaw->reason, sizeof(flaw->reason),
			       "the schema has version %d, this program needs %d: run sql/migrate",
			       (int)session->schema_version, DB_SCHEMA_VERSION);
		return RESULT_INVALID;
	}
	return RESULT_OK;
}
