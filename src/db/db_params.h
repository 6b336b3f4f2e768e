/* db_params.h: the parameters of a database call in PostgreSQL's binary form, scalars and one-dimensional arrays. */
#ifndef OTP_DB_PARAMS_H
#define OTP_DB_PARAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

#define DB_PARAMS_MAX 20

/* The parameters of a call, in order. Buffers grow and are reused: no allocation per call once warm. A failed
   allocation is remembered and makes the call return RESULT_FAULT. */
struct db_params;
struct db_params *db_params_new(void);          /* NULL: out of memory */
void db_params_free(struct db_params *params);  /* wipes */
void db_params_reset(struct db_params *params); /* wipes */
void db_add_int(struct db_params *params, int32_t value);
void db_add_smallint(struct db_params *params, int16_t value);
void db_add_null(struct db_params *params);
void db_add_text(struct db_params *params, const char *text); /* NULL: SQL null */
void db_add_uuid(struct db_params *params, const unsigned char id[static 16]);

/* One-dimensional arrays: begin, then one item per element, then end. */
enum db_element { DB_INT4, DB_TEXT, DB_UUID, DB_BYTEA };
void db_array_begin(struct db_params *params, enum db_element element);
void db_array_bytes(struct db_params *params, const void *bytes, size_t length); /* NULL: SQL null */
void db_array_text(struct db_params *params, const char *text);                  /* NULL: SQL null */
void db_array_int(struct db_params *params, int32_t value);
void db_array_end(struct db_params *params);

/* What libpq wants: count pointers (NULL: SQL null) and lengths, all of them binary. Valid until the next change.
   RESULT_FAULT: an allocation failed or there were too many. */
struct db_params_view {
	int count;
	const char *value[DB_PARAMS_MAX];
	int length[DB_PARAMS_MAX];
	int format[DB_PARAMS_MAX];
};
OTP_MUST_CHECK enum result db_params_view(const struct db_params *params, struct db_params_view *view);

#endif
