/* rows.h: answers of the database, made by hand: for tests of what is understood of them. */
#ifndef OTP_TEST_ROWS_H
#define OTP_TEST_ROWS_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <string.h>

#define ROWS_COLUMNS 8

/* A value of each column; NULL: SQL null. Integers in the binary form. */
struct row {
	const char *value[ROWS_COLUMNS];
};

#define ZERO "\0\0\0\0"
#define ONE "\0\0\0\1"
#define TWO "\0\0\0\2"

/* integers: a bit for each column that is one. */
static PGresult *make_rows(const struct row *rows, int count, int columns, unsigned integers)
{
	static char name[] = "x";
	PGresAttDesc attributes[ROWS_COLUMNS];
	PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);

	memset(attributes, 0, sizeof(attributes));
	for (int column = 0; column < columns; column++)
		attributes[column].name = name;
	assert_true(PQsetResultAttrs(result, columns, attributes));
	for (int i = 0; i < count; i++) {
		for (int column = 0; column < columns; column++) {
			bool is_integer = (integers & 1U << column) != 0;
			const char *value = rows[i].value[column];
			int length = value == NULL ? -1 : is_integer ? 4 : (int)strlen(value);

			assert_true(PQsetvalue(result, i, column, (char *)value, length));
		}
	}
	return result;
}

#endif
