/* test_ask.c: what the database says of codes to be made is understood to the letter, or nobody gets one (A14). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/ask.h"

#include "rows.h"

#define MAX 3
#define CONTEXT "0123456789abcdef0123456789abcdef"

static enum result decode(enum ask_call call, const struct row *rows, int count, size_t asked,
			  struct ask_answer *answers)
{
	static const struct {
		int columns;
		unsigned integers;
	} shape[ASK_CALLS] = {[ASK_GENERATE] = {2, 1U << 0 | 1U << 1},
			      [ASK_TERMS] = {8, 1U << 0 | 1U << 6 | 1U << 7},
			      [ASK_RESEND] = {3, 1U << 0 | 1U << 2}};
	static PGresult *result; /* texts live as long as it */

	PQclear(result);
	result = make_rows(rows, count, shape[call].columns, shape[call].integers);
	return ask_decode(call, result, asked, answers);
}

static void asks_have_one_answer_each(void **state)
{
	static const struct row good[] = {{{TWO, "\0\0\0\x3C"}}, {{ONE, ZERO}}};
	static const struct row bad[] = {{{ONE, "\xFF\xFF\xFF\xFF"}}, {{ONE, NULL}}};
	struct ask_answer answers[MAX];

	(void)state;
	assert_int_equal(decode(ASK_GENERATE, good, 2, 2, answers), RESULT_OK);
	assert_int_equal(answers[0].verdict, HTTP_OK);
	assert_int_equal(answers[1].verdict, HTTP_LIMITED);
	assert_int_equal(answers[1].retry_after, 60);
	assert_int_equal(decode(ASK_GENERATE, good, 2, 1, answers), RESULT_FAULT);
	assert_int_equal(decode(ASK_GENERATE, good, 2, 3, answers), RESULT_FAULT);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(decode(ASK_GENERATE, &bad[i], 1, 1, answers), RESULT_FAULT);
}

static void the_terms_of_a_resend_are_read(void **state)
{
	static const struct row rows[] = {
	    {{ONE, "ready", "jane@example.com", "de", "sign-in", CONTEXT, "\0\0\0\6", ONE}},
	    {{TWO, "exhausted", NULL, NULL, NULL, NULL, NULL, NULL}}};
	static const struct row bad[] = {
	    {{ONE, "stored", "jane@example.com", NULL, NULL, NULL, "\0\0\0\6", ZERO}},
	    {{ONE, "ready", NULL, NULL, NULL, NULL, "\0\0\0\6", ZERO}},
	    {{ONE, "ready", "jane@example.com", NULL, NULL, "short", "\0\0\0\6", ZERO}},
	    {{ONE, "ready", "jane@example.com", NULL, NULL, NULL, "\0\0\0\3", ZERO}},
	    {{ONE, "ready", "jane@example.com", NULL, NULL, NULL, "\0\0\0\xD", ZERO}},
	    {{ONE, "ready", "jane@example.com", NULL, NULL, NULL, "\0\0\0\6", NULL}},
	};
	struct ask_answer answers[MAX];

	(void)state;
	assert_int_equal(decode(ASK_TERMS, rows, 2, 2, answers), RESULT_OK);
	assert_int_equal(answers[0].verdict, HTTP_OK);
	assert_string_equal(answers[0].mailbox, "jane@example.com");
	assert_string_equal(answers[0].locale, "de");
	assert_string_equal(answers[0].purpose, "sign-in");
	assert_memory_equal(answers[0].context, CONTEXT, CODE_CONTEXT_BYTES);
	assert_int_equal(answers[0].digits, 6);
	assert_true(answers[0].is_test);
	assert_int_equal(answers[1].verdict, HTTP_EXHAUSTED);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(decode(ASK_TERMS, &bad[i], 1, 1, answers), RESULT_FAULT);
}

static void a_resend_is_stored_limited_or_refused(void **state)
{
	static const struct row rows[] = {{{ONE, "stored", NULL}}, {{TWO, "rate_limited", "\0\0\0\7"}}};
	static const struct row revoked = {{ONE, "revoked", NULL}};
	static const struct row bad[] = {{{ONE, "ready", NULL}}, {{ONE, "rate_limited", NULL}}, {{ONE, NULL, NULL}}};
	struct ask_answer answers[MAX];

	(void)state;
	assert_int_equal(decode(ASK_RESEND, rows, 2, 2, answers), RESULT_OK);
	assert_int_equal(answers[0].verdict, HTTP_OK);
	assert_int_equal(answers[1].verdict, HTTP_LIMITED);
	assert_int_equal(answers[1].retry_after, 7);
	assert_int_equal(decode(ASK_RESEND, &revoked, 1, 1, answers), RESULT_OK);
	assert_int_equal(answers[0].verdict, HTTP_REVOKED);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(decode(ASK_RESEND, &bad[i], 1, 1, answers), RESULT_FAULT);
}

static void a_batch_has_what_its_function_takes(void **state)
{
	const struct ask_terms terms = {.application = "shop", .digits = 8, .mac_key = 3, .mail_key = 2};
	struct ask ask[2] = {{.terms = &terms, .email = "a@b.c"}, {.terms = &terms, .email = "d@e.f", .is_test = true}};
	struct batch_item *items[2] = {&ask[0].item, &ask[1].item};
	struct db_params *params = db_params_new();
	struct db_params_view view;

	(void)state;
	ask_encode(params, items, 2);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.count, 19);
	assert_memory_equal(view.value[8], "\0\3", 2);
	assert_int_equal(view.length[9], 20 + 4 + SEAL_BYTES + 4); /* nothing is sealed for a test address */
	assert_memory_equal(view.value[12], "shop", 4);
	assert_memory_equal(view.value[13], "\0\x8", 2);
	ask[0].item.call = ask[1].item.call = ASK_TERMS;
	ask_encode(params, items, 2);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.count, 3);
	ask[0].item.call = ask[1].item.call = ASK_RESEND;
	ask_encode(params, items, 2);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.count, 14);
	db_params_free(params);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(asks_have_one_answer_each),
	    cmocka_unit_test(the_terms_of_a_resend_are_read),
	    cmocka_unit_test(a_resend_is_stored_limited_or_refused),
	    cmocka_unit_test(a_batch_has_what_its_function_takes),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
