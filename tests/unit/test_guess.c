/* test_guess.c: what the database says of a batch is understood to the letter, or nobody succeeds (A14). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "http/guess.h"

#include "rows.h"

#define MAX 3

/* ord, verdict, number, email, mailbox, purpose, is_test */
static enum result decode(const struct row *rows, int count, size_t asked, struct guess_answer *answers)
{
	static PGresult *result; /* texts live as long as it */

	PQclear(result);
	result = make_rows(rows, count, 7, 1U << 0 | 1U << 2 | 1U << 6);
	return guess_decode(GUESS_VALIDATE, result, asked, answers);
}

static void verdicts_are_read_in_any_order(void **state)
{
	static const struct row rows[] = {
	    {{TWO, "wrong_password", "\0\0\0\4", NULL, NULL, NULL, NULL}},
	    {{ONE, "valid", NULL, "Jane+x@example.com", "jane@example.com", "sign-in", ONE}}};
	struct guess_answer answers[MAX];

	(void)state;
	assert_int_equal(decode(rows, 2, 2, answers), RESULT_OK);
	assert_int_equal(answers[0].verdict, HTTP_OK);
	assert_string_equal(answers[0].email, "Jane+x@example.com");
	assert_string_equal(answers[0].mailbox, "jane@example.com");
	assert_string_equal(answers[0].purpose, "sign-in");
	assert_true(answers[0].is_test);
	assert_int_equal(answers[1].verdict, HTTP_WRONG_PASSWORD);
	assert_int_equal(answers[1].number, 4);
	assert_null(answers[1].email);
}

static void b5_a_key_that_is_missing_is_named(void **state)
{
	static const struct row rows[] = {{{ONE, "unknown_key", "\0\0\0\7"}}, {{TWO, "used"}}};
	static const struct row nameless = {{ONE, "unknown_key"}};
	struct guess_answer answers[MAX];

	(void)state;
	assert_int_equal(decode(rows, 2, 2, answers), RESULT_OK);
	assert_int_equal(answers[0].verdict, HTTP_UNAVAILABLE);
	assert_int_equal(answers[0].number, 7);
	assert_int_equal(answers[1].verdict, HTTP_USED);
	assert_int_equal(decode(&nameless, 1, 1, answers), RESULT_FAULT);
}

static void every_verdict_has_its_outcome(void **state)
{
	static const struct {
		const char *word;
		enum http_outcome outcome;
	} words[] = {{"expired", HTTP_EXPIRED},
		     {"used", HTTP_USED},
		     {"exhausted", HTTP_EXHAUSTED},
		     {"revoked", HTTP_REVOKED},
		     {"wrong_purpose", HTTP_WRONG_PURPOSE},
		     {"not_a_code", HTTP_NOT_A_CODE},
		     {"unknown_token", HTTP_UNKNOWN_TOKEN}};

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct row row = {{ONE, words[i].word}};
		struct guess_answer answer;

		assert_int_equal(decode(&row, 1, 1, &answer), RESULT_OK);
		assert_int_equal(answer.verdict, words[i].outcome);
	}
}

#define VALID "valid", NULL, "a@b.c", "a@b.c", NULL, ZERO

static void a14_what_makes_no_sense_is_a_fault(void **state)
{
	static const struct row none[] = {{{ONE, VALID}}, {{ONE, "used"}}};
	static const struct row wrong[] = {
	    {{ONE, "Valid", NULL, "a@b.c", "a@b.c", NULL, ZERO}},
	    {{ONE, "valid ", NULL, "a@b.c", "a@b.c", NULL, ZERO}},
	    {{ONE, "", NULL, "a@b.c", "a@b.c", NULL, ZERO}},
	    {{ONE, NULL, NULL, "a@b.c", "a@b.c", NULL, ZERO}},
	    {{ONE, "valid", NULL, NULL, "a@b.c", NULL, ZERO}},
	    {{ONE, "valid", NULL, "a@b.c", NULL, NULL, ZERO}},
	    {{ONE, "valid", NULL, "a@b.c", "a@b.c", NULL, NULL}},
	    {{ONE, "ok", NULL, "a@b.c", "a@b.c", NULL, ZERO}},
	    {{ONE, "stored", NULL, "a@b.c", "a@b.c", NULL, ZERO}},
	    {{ONE, "rate_limited"}},
	    {{ONE, "unavailable", TWO}},
	    {{ONE, "wrong_password"}},
	    {{ZERO, VALID}},
	    {{TWO, VALID}},
	    {{"\xFF\xFF\xFF\xFF", "used"}},
	    {{NULL, "used"}},
	};
	struct guess_answer answers[MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(decode(&wrong[i], 1, 1, answers), RESULT_FAULT);
	assert_int_equal(decode(none, 0, 1, answers), RESULT_FAULT);
	assert_int_equal(decode(none, 2, 1, answers), RESULT_FAULT);
	assert_int_equal(decode(none, 1, 2, answers), RESULT_FAULT);
	assert_int_equal(decode(none, 2, 2, answers), RESULT_FAULT); /* one request twice, the other not at all */
}

static void a_batch_has_one_element_for_each_request(void **state)
{
	struct guess guess[2] = {{.digits = 6, .application = "shop", .purpose = "sign-in"}, {.digits = 0}};
	struct batch_item *items[2] = {&guess[0].item, &guess[1].item};
	struct db_params *params = db_params_new();
	struct db_params_view view;

	(void)state;
	memset(guess[0].mac, 0xAA, sizeof(guess[0].mac));
	memset(guess[1].mac, 0xBB, sizeof(guess[1].mac));
	guess_encode(params, items, 2, &(struct guess_keys){7, -1});
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.count, 9);
	assert_int_equal(view.length[0], 20 + 2 * (4 + TOKEN_ID_BYTES));
	assert_int_equal(view.length[1], 20 + 4 + 4 + 4);
	assert_int_equal(view.length[2], 20 + 4 + 7 + 4);
	assert_int_equal(view.length[5], 20 + 4 + CODE_MAC_BYTES + 4); /* what cannot be a code is null */
	assert_memory_equal(view.value[6], "\0\7", 2);
	assert_null(view.value[7]);
	assert_null(view.value[8]);
	guess_encode(params, items, 2, &(struct guess_keys){7, 6});
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.length[7], 20 + 4 + CODE_MAC_BYTES + 4);
	assert_memory_equal(view.value[8], "\0\6", 2);
	guess[0].item.call = guess[1].item.call = GUESS_REVOKE;
	guess_encode(params, items, 2, &(struct guess_keys){7, 6});
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.count, 2);
	db_params_free(params);
}

static void what_became_of_a_mail_is_read(void **state)
{
	static const struct row rows[] = {{{ONE, "sent", "2026-01-02T03:04:05Z", TWO, "250 ok", ZERO}},
					  {{TWO, "unknown_token", NULL, ZERO, NULL, NULL}}};
	static const struct row wrong[] = {{{ONE, NULL, NULL, ZERO, NULL, ZERO}},
					   {{ONE, "sent", NULL, NULL, NULL, ZERO}}};
	PGresult *result = make_rows(rows, 2, 6, 1U << 0 | 1U << 3 | 1U << 5);
	struct guess_answer answers[MAX];

	(void)state;
	assert_int_equal(guess_decode(GUESS_DELIVERY, result, 2, answers), RESULT_OK);
	assert_int_equal(answers[0].verdict, HTTP_OK);
	assert_string_equal(answers[0].state, "sent");
	assert_string_equal(answers[0].sent_at, "2026-01-02T03:04:05Z");
	assert_string_equal(answers[0].reason, "250 ok");
	assert_int_equal(answers[0].attempts, 2);
	assert_int_equal(answers[1].verdict, HTTP_UNKNOWN_TOKEN);
	PQclear(result);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		result = make_rows(&wrong[i], 1, 6, 1U << 0 | 1U << 3 | 1U << 5);
		assert_int_equal(guess_decode(GUESS_DELIVERY, result, 1, answers), RESULT_FAULT);
		PQclear(result);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(verdicts_are_read_in_any_order),
	    cmocka_unit_test(every_verdict_has_its_outcome),
	    cmocka_unit_test(a14_what_makes_no_sense_is_a_fault),
	    cmocka_unit_test(a_batch_has_one_element_for_each_request),
	    cmocka_unit_test(b5_a_key_that_is_missing_is_named),
	    cmocka_unit_test(what_became_of_a_mail_is_read),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
