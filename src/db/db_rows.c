/* db_rows.c: the rows of an answer, in PostgreSQL's binary form. */
#include "db/db_rows.h"

#include <endian.h>
#include <libpq-fe.h>
#include <string.h>

size_t db_rows_count(const struct pg_result *rows)
{
	return (size_t)PQntuples(rows);
}

bool db_is_null(const struct pg_result *rows, size_t row, int column)
{
	return PQgetisnull(rows, (int)row, column);
}

/* A null has length 0, and so has what is out of range. */
enum result db_copy_bytes(const struct pg_result *rows, size_t row, int column, void *out, size_t size)
{
	if (PQgetlength(rows, (int)row, column) != (int)size)
		return RESULT_FAULT;
	memcpy(out, PQgetvalue(rows, (int)row, column), size);
	return RESULT_OK;
}

enum result db_copy_text(const struct pg_result *rows, size_t row, int column, char *out, size_t size)
{
	const char *text = db_get_text(rows, row, column);
	size_t length = strlen(text);

	if (length >= size)
		return RESULT_FAULT;
	memcpy(out, text, length + 1);
	return RESULT_OK;
}

enum result db_get_int(const struct pg_result *rows, size_t row, int column, int32_t *value)
{
	uint32_t big_endian = 0;
	enum result result = db_copy_bytes(rows, row, column, &big_endian, sizeof(big_endian));

	if (result == RESULT_OK)
		*value = (int32_t)be32toh(big_endian);
	return result;
}

enum result db_get_bigint(const struct pg_result *rows, size_t row, int column, int64_t *value)
{
	uint64_t big_endian = 0;
	enum result result = db_copy_bytes(rows, row, column, &big_endian, sizeof(big_endian));

	if (result == RESULT_OK)
		*value = (int64_t)be64toh(big_endian);
	return result;
}

const char *db_get_text(const struct pg_result *rows, size_t row, int column)
{
	return PQgetvalue(rows, (int)row, column);
}

const char *db_get_text_or_null(const struct pg_result *rows, size_t row, int column)
{
	return db_is_null(rows, row, column) ? NULL : db_get_text(rows, row, column);
}

const unsigned char *db_get_bytes(const struct pg_result *rows, size_t row, int column, size_t *length)
{
	*length = (size_t)PQgetlength(rows, (int)row, column);
	return (const unsigned char *)PQgetvalue(rows, (int)row, column);
}

void db_rows_free(struct pg_result *rows)
{
	PQclear(rows);
}
