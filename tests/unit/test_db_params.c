/* test_db_params.c: parameters in PostgreSQL's binary form, to the byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "db/db_params.h"

static struct db_params *params;
static struct db_params_view view;

static int start(void **state)
{
	(void)state;
	params = db_params_new();
	return params == NULL;
}

static int finish(void **state)
{
	(void)state;
	db_params_free(params);
	return 0;
}

static void assert_param(int i, const char *bytes, size_t length)
{
	assert_true(i < view.count);
	assert_int_equal(view.format[i], 1);
	assert_int_equal(view.length[i], length);
	assert_memory_equal(view.value[i], bytes, length);
}

#define ASSERT_PARAM(i, bytes) assert_param(i, bytes, sizeof(bytes) - 1)

static void scalars(void **state)
{
	static const unsigned char id[16] = "0123456789abcde";

	(void)state;
	db_params_reset(params);
	db_add_int(params, 0x01020304);
	db_add_int(params, -2);
	db_add_smallint(params, -3);
	db_add_text(params, "t\xC3\xA9xt");
	db_add_text(params, "");
	db_add_text(params, NULL);
	db_add_null(params);
	db_add_uuid(params, id);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.count, 8);
	ASSERT_PARAM(0, "\1\2\3\4");
	ASSERT_PARAM(1, "\xFF\xFF\xFF\xFE");
	ASSERT_PARAM(2, "\xFF\xFD");
	ASSERT_PARAM(3, "t\xC3\xA9xt");
	assert_non_null(view.value[4]); /* an empty text is not null */
	assert_int_equal(view.length[4], 0);
	assert_null(view.value[5]);
	assert_null(view.value[6]);
	assert_param(7, (const char *)id, 16);
}

static void arrays(void **state)
{
	(void)state;
	db_params_reset(params);
	db_array_begin(params, DB_INT4);
	db_array_int(params, 1);
	db_array_int(params, -1);
	db_array_end(params);
	db_array_begin(params, DB_TEXT);
	db_array_text(params, "ab");
	db_array_text(params, NULL);
	db_array_text(params, "");
	db_array_end(params);
	db_array_begin(params, DB_BYTEA);
	db_array_end(params);
	db_array_begin(params, DB_UUID);
	db_array_bytes(params, "0123456789abcdef", 16);
	db_array_end(params);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.count, 4);
	ASSERT_PARAM(0, "\0\0\0\1" /* dimensions */ "\0\0\0\0" /* no null */ "\0\0\0\x17" /* int4 */ "\0\0\0\2"
			"\0\0\0\1"
			"\0\0\0\4\0\0\0\1"
			"\0\0\0\4\xFF\xFF\xFF\xFF");
	ASSERT_PARAM(1, "\0\0\0\1"
			"\0\0\0\1"
			"\0\0\0\x19"
			"\0\0\0\3"
			"\0\0\0\1"
			"\0\0\0\2"
			"ab"
			"\xFF\xFF\xFF\xFF"
			"\0\0\0\0");
	ASSERT_PARAM(2, "\0\0\0\0"
			"\0\0\0\0"
			"\0\0\0\x11"); /* an empty array has no dimension */
	ASSERT_PARAM(3, "\0\0\0\1"
			"\0\0\0\0"
			"\0\0\x0B\x86"
			"\0\0\0\1"
			"\0\0\0\1"
			"\0\0\0\x10"
			"0123456789abcdef");
}

static void the_first_of_many_stays_right_when_the_buffer_moves(void **state)
{
	char large[20000];

	(void)state;
	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	db_params_reset(params);
	db_add_text(params, "first");
	db_array_begin(params, DB_TEXT);
	for (int i = 0; i < 10; i++)
		db_array_text(params, large);
	db_array_end(params);
	db_add_int(params, 7);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	ASSERT_PARAM(0, "first");
	assert_int_equal(view.length[1], 20 + 10 * (4 + sizeof(large) - 1));
	ASSERT_PARAM(2, "\0\0\0\7");
}

static void too_many_are_a_fault_until_the_next_call(void **state)
{
	(void)state;
	db_params_reset(params);
	for (int i = 0; i < DB_PARAMS_MAX; i++)
		db_add_int(params, i);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.count, DB_PARAMS_MAX);
	db_add_null(params);
	assert_int_equal(db_params_view(params, &view), RESULT_FAULT);
	db_add_text(params, "more");
	db_array_begin(params, DB_TEXT);
	db_array_text(params, "more");
	db_array_end(params);
	assert_int_equal(db_params_view(params, &view), RESULT_FAULT);
	db_params_reset(params);
	db_add_int(params, 1);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	ASSERT_PARAM(0, "\0\0\0\1");
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(scalars),
	    cmocka_unit_test(arrays),
	    cmocka_unit_test(the_first_of_many_stays_right_when_the_buffer_moves),
	    cmocka_unit_test(too_many_are_a_fault_until_the_next_call),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, start, finish);
}
