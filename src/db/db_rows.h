/* db_rows.h: the rows of an answer, in PostgreSQL's binary form. */
#ifndef OTP_DB_ROWS_H
#define OTP_DB_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/result.h"

struct pg_result; /* libpq's */

/* Rows and columns from 0. Texts and bytes are valid until the call's handler returns (or db_rows_free). RESULT_FAULT:
   the column is null or of another size. */
size_t db_rows_count(const struct pg_result *rows);
bool db_is_null(const struct pg_result *rows, size_t row, int column);
OTP_MUST_CHECK enum result db_get_int(const struct pg_result *rows, size_t row, int column, int32_t *value);
OTP_MUST_CHECK enum result db_get_bigint(const struct pg_result *rows, size_t row, int column, int64_t *value);
const char *db_get_text(const struct pg_result *rows, size_t row, int column);         /* "" for null */
const char *db_get_text_or_null(const struct pg_result *rows, size_t row, int column); /* NULL for null */
const unsigned char *db_get_bytes(const struct pg_result *rows, size_t row, int column, size_t *length);

/* Copy a value of exactly size bytes; a text that fits in size bytes with its NUL ("" for null). */
OTP_MUST_CHECK enum result db_copy_bytes(const struct pg_result *rows, size_t row, int column, void *out, size_t size);
OTP_MUST_CHECK enum result db_copy_text(const struct pg_result *rows, size_t row, int column, char *out, size_t size);

void db_rows_free(struct pg_result *rows);

#endif
