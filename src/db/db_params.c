/* db_params.c: the parameters of a database call in PostgreSQL's binary form, scalars and one-dimensional arrays. */
#include "db/db_params.h"

#include <endian.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define NO_OFFSET SIZE_MAX

struct db_params {
	unsigned char *bytes;
	size_t length;
	size_t capacity;
	bool failed;
	int count;
	size_t offset[DB_PARAMS_MAX]; /* NO_OFFSET: null */
	size_t size[DB_PARAMS_MAX];
	size_t elements; /* of the array being built */
	bool has_null;
};

struct db_params *db_params_new(void)
{
	return calloc(1, sizeof(struct db_params));
}

void db_params_free(struct db_params *params)
{
	if (params == NULL)
		return;
	db_params_reset(params);
	free(params->bytes);
	free(params);
}

void db_params_reset(struct db_params *params)
{
	if (params->length > 0)
		sodium_memzero(params->bytes, params->length);
	params->length = 0;
	params->count = 0;
	params->failed = false;
}

/* Room for more bytes at the end, or NULL. Old contents are wiped when they move. */
static unsigned char *extend(struct db_params *params, size_t more)
{
	if (params->failed)
		return NULL;
	if (params->length + more > params->capacity) {
		size_t capacity = 2 * (params->length + more) + 1024;
		unsigned char *bytes = malloc(capacity);

		if (bytes == NULL) {
			params->failed = true;
			return NULL;
		}
		if (params->length > 0) {
			memcpy(bytes, params->bytes, params->length);
			sodium_memzero(params->bytes, params->length);
		}
		free(params->bytes);
		params->bytes = bytes;
		params->capacity = capacity;
	}
	params->length += more;
	return params->bytes + params->length - more;
}

static void put_bytes(struct db_params *params, const void *bytes, size_t length)
{
	unsigned char *place = extend(params, length);

	if (place != NULL && length > 0)
		memcpy(place, bytes, length);
}

static void write_int(unsigned char *place, uint32_t value)
{
	uint32_t big_endian = htobe32(value);

	memcpy(place, &big_endian, sizeof(big_endian));
}

static void put_int(struct db_params *params, uint32_t value)
{
	unsigned char *place = extend(params, 4);

	if (place != NULL)
		write_int(place, value);
}

/* Starts the next parameter where the bytes end now. */
static bool start(struct db_params *params)
{
	if (params->count == DB_PARAMS_MAX)
		params->failed = true;
	if (params->failed)
		return false;
	params->offset[params->count] = params->length;
	return true;
}

static void finish(struct db_params *params)
{
	if (params->failed)
		return;
	params->size[params->count] = params->length - params->offset[params->count];
	params->count++;
}

void db_add_int(struct db_params *params, int32_t value)
{
	if (start(params))
		put_int(params, (uint32_t)value);
	finish(params);
}

void db_add_smallint(struct db_params *params, int16_t value)
{
	uint16_t big_endian = htobe16((uint16_t)value);

	if (start(params))
		put_bytes(params, &big_endian, sizeof(big_endian));
	finish(params);
}

void db_add_null(struct db_params *params)
{
	if (start(params))
		params->offset[params->count] = NO_OFFSET;
	if (!params->failed)
		params->size[params->count++] = 0;
}

void db_add_text(struct db_params *params, const char *text)
{
	if (text == NULL) {
		db_add_null(params);
		return;
	}
	if (start(params))
		put_bytes(params, text, strlen(text));
	finish(params);
}

void db_add_uuid(struct db_params *params, const unsigned char id[static 16])
{
	if (start(params))
		put_bytes(params, id, 16);
	finish(params);
}

/* Array header: dimensions, has-null, element type, length, lower bound; the first, second and fourth are set at the
   end (src/include/utils/array.h and arrayfuncs.c of PostgreSQL, array_recv). */
void db_array_begin(struct db_params *params, enum db_element element)
{
	static const uint32_t type[] = {[DB_INT4] = 23, [DB_TEXT] = 25, [DB_UUID] = 2950, [DB_BYTEA] = 17};

	params->elements = 0;
	params->has_null = false;
	if (!start(params))
		return;
	put_int(params, 1);
	put_int(params, 0);
	put_int(params, type[element]);
	put_int(params, 0);
	put_int(params, 1);
}

void db_array_bytes(struct db_params *params, const void *bytes, size_t length)
{
	params->elements++;
	if (bytes == NULL) {
		params->has_null = true;
		put_int(params, UINT32_MAX);
		return;
	}
	put_int(params, (uint32_t)length);
	put_bytes(params, bytes, length);
}

void db_array_text(struct db_params *params, const char *text)
{
	db_array_bytes(params, text, text != NULL ? strlen(text) : 0);
}

void db_array_int(struct db_params *params, int32_t value)
{
	params->elements++;
	put_int(params, 4);
	put_int(params, (uint32_t)value);
}

void db_array_end(struct db_params *params)
{
	unsigned char *header;

	if (params->failed)
		return;
	header = params->bytes + params->offset[params->count];
	write_int(header + 4, params->has_null);
	write_int(header + 12, (uint32_t)params->elements);
	if (params->elements == 0) {
		write_int(header, 0);
		params->length = params->offset[params->count] + 12;
	}
	finish(params);
}

enum result db_params_view(const struct db_params *params, struct db_params_view *view)
{
	if (params->failed)
		return RESULT_FAULT;
	view->count = params->count;
	for (int i = 0; i < params->count; i++) {
		bool is_null = params->offset[i] == NO_OFFSET;

		view->value[i] = is_null ? NULL : (const char *)params->bytes + params->offset[i];
		view->length[i] = (int)params->size[i];
		view->format[i] = 1;
	}
	return RESULT_OK;
}
