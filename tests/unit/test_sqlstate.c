/* test_sqlstate.c: which errors pass, which stay, and which leave the outcome open. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "db/sqlstate.h"

static void passing_errors(void **state)
{
	(void)state;
	assert_int_equal(sqlstate_result("40P01"), RESULT_UNAVAILABLE); /* deadlock_detected */
	assert_int_equal(sqlstate_result("53100"), RESULT_UNAVAILABLE); /* disk_full */
	assert_int_equal(sqlstate_result("55P03"), RESULT_UNAVAILABLE); /* lock_not_available */
	assert_int_equal(sqlstate_result("57014"), RESULT_UNAVAILABLE); /* query_canceled */
	assert_int_equal(sqlstate_result("58030"), RESULT_UNAVAILABLE); /* io_error */
}

static void lasting_errors(void **state)
{
	(void)state;
	assert_int_equal(sqlstate_result("23505"), RESULT_FAULT); /* unique_violation */
	assert_int_equal(sqlstate_result("42501"), RESULT_FAULT); /* insufficient_privilege */
	assert_int_equal(sqlstate_result("P0001"), RESULT_FAULT); /* raise_exception */
	assert_int_equal(sqlstate_result(""), RESULT_FAULT);
}

static void open_outcomes(void **state)
{
	(void)state;
	assert_int_equal(sqlstate_result("57P01"), RESULT_UNKNOWN); /* admin_shutdown */
	assert_int_equal(sqlstate_result("57P02"), RESULT_UNKNOWN); /* crash_shutdown */
	assert_int_equal(sqlstate_result("25006"), RESULT_UNKNOWN); /* read_only_sql_transaction */
	assert_int_equal(sqlstate_result(NULL), RESULT_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(passing_errors),
	    cmocka_unit_test(lasting_errors),
	    cmocka_unit_test(open_outcomes),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("sqlstate", tests, NULL, NULL);
}
