/* test_challenge.c: what the database says of a batch is understood to the letter, or nobody succeeds (A14). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libpq-fe.h>
#include <string.h>

#include "http/challenge.h"

#define MAX 3

/* A row of otp.validate; NULL: SQL null. */
struct row {
	const char *ord;
	const char *verdict;
	const char *attempts_left;
	const char *email;
	const char *unknown_key;
};

/* Integers in the binary form, and one that is too short. */
#define ONE "\0\0\0\1"
#define TWO "\0\0\0\2"

static PGresult *make(const struct row *rows, int count, int columns)
{
	static char name[] = "x";
	PGresAttDesc attributes[5] = {{.name = name}, {.name = name}, {.name = name}, {.name = name}, {.name = name}};
	PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);

	assert_true(PQsetResultAttrs(result, columns, attributes));
	for (int i = 0; i < count; i++) {
		const char *values[5] = {rows[i].ord, rows[i].verdict, rows[i].attempts_left, rows[i].email,
					 rows[i].unknown_key};

		for (int column = 0; column < columns; column++) {
			bool is_integer = columns == 2 || column % 2 == 0;
			const char *value = values[column];
			int length = value == NULL ? -1 : is_integer ? 4 : (int)strlen(value);

			assert_true(PQsetvalue(result, i, column, (char *)value, length));
		}
	}
	return result;
}

static enum result decode(const struct row *rows, int count, size_t asked, struct challenge_answer *answers)
{
	static PGresult *result; /* texts live as long as it */

	PQclear(result);
	result = make(rows, count, 5);
	return challenge_decode_guesses(result, asked, answers);
}

static void verdicts_are_read_in_any_order(void **state)
{
	static const struct row rows[] = {{TWO, "wrong_password", "\0\0\0\4", NULL, NULL},
					  {ONE, "valid", NULL, "jane@example.com", NULL}};
	struct challenge_answer answers[MAX];

	(void)state;
	assert_int_equal(decode(rows, 2, 2, answers), RESULT_OK);
	assert_int_equal(answers[0].verdict, HTTP_OK);
	assert_string_equal(answers[0].email, "jane@example.com");
	assert_int_equal(answers[1].verdict, HTTP_WRONG_PASSWORD);
	assert_int_equal(answers[1].attempts_left, 4);
	assert_null(answers[1].email);
}

static void b5_a_key_that_is_missing_is_named(void **state)
{
	static const struct row rows[] = {{ONE, "unknown_key", NULL, NULL, "\0\0\0\7"},
					  {TWO, "used", NULL, NULL, NULL}};
	static const struct row nameless = {ONE, "unknown_key", NULL, NULL, NULL};
	struct challenge_answer answers[MAX];

	(void)state;
	assert_int_equal(decode(rows, 2, 2, answers), RESULT_OK);
	assert_int_equal(answers[0].verdict, HTTP_UNAVAILABLE);
	assert_int_equal(answers[0].unknown_key, 7);
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
		     {"unknown_token", HTTP_UNKNOWN_TOKEN}};

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		struct row row = {ONE, words[i].word, NULL, NULL, NULL};
		struct challenge_answer answer;

		assert_int_equal(decode(&row, 1, 1, &answer), RESULT_OK);
		assert_int_equal(answer.verdict, words[i].outcome);
	}
}

static void a14_what_makes_no_sense_is_a_fault(void **state)
{
	static const struct row none[] = {{ONE, "valid", NULL, "a@b.c", NULL}, {ONE, "used", NULL, NULL, NULL}};
	static const struct row wrong[] = {
	    {ONE, "Valid", NULL, "a@b.c", NULL},
	    {ONE, "valid ", NULL, "a@b.c", NULL},
	    {ONE, "", NULL, "a@b.c", NULL},
	    {ONE, NULL, NULL, "a@b.c", NULL},
	    {ONE, "valid", NULL, NULL, NULL},
	    {ONE, "ok", NULL, "a@b.c", NULL},
	    {ONE, "rate_limited", NULL, NULL, NULL},
	    {ONE, "unavailable", NULL, NULL, TWO},
	    {ONE, "wrong_password", NULL, NULL, NULL},
	    {"\0\0\0\0", "valid", NULL, "a@b", NULL},
	    {TWO, "valid", NULL, "a@b.c", NULL},
	    {"\xFF\xFF\xFF\xFF", "used", NULL, NULL, NULL},
	    {NULL, "used", NULL, NULL, NULL},
	};
	struct challenge_answer answers[MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(decode(&wrong[i], 1, 1, answers), RESULT_FAULT);
	assert_int_equal(decode(none, 0, 1, answers), RESULT_FAULT);
	assert_int_equal(decode(none, 2, 1, answers), RESULT_FAULT);
	assert_int_equal(decode(none, 1, 2, answers), RESULT_FAULT);
	assert_int_equal(decode(none, 2, 2, answers), RESULT_FAULT); /* one request twice, the other not at all */
}

static void asks_have_one_answer_each(void **state)
{
	static const struct row good[] = {{TWO, "\0\0\0\x3C", NULL, NULL, NULL}, {ONE, "\0\0\0\0", NULL, NULL, NULL}};
	static const struct row bad[] = {{ONE, "\xFF\xFF\xFF\xFF", NULL, NULL, NULL}, {ONE, NULL, NULL, NULL, NULL}};
	PGresult *result = make(good, 2, 2);
	int retry_after[MAX];

	(void)state;
	assert_int_equal(challenge_decode_asks(result, 2, retry_after), RESULT_OK);
	assert_int_equal(retry_after[0], 0);
	assert_int_equal(retry_after[1], 60);
	assert_int_equal(challenge_decode_asks(result, 1, retry_after), RESULT_FAULT);
	assert_int_equal(challenge_decode_asks(result, 3, retry_after), RESULT_FAULT);
	PQclear(result);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		result = make(&bad[i], 1, 2);
		assert_int_equal(challenge_decode_asks(result, 1, retry_after), RESULT_FAULT);
		PQclear(result);
	}
}

static void a_batch_has_one_element_for_each_request(void **state)
{
	struct challenge_guess guess[2] = {{.is_possible = true}, {.is_possible = false}};
	struct batch_item *items[2] = {&guess[0].item, &guess[1].item};
	struct db_params *params = db_params_new();
	struct db_params_view view;

	(void)state;
	memset(guess[0].mac, 0xAA, sizeof(guess[0].mac));
	memset(guess[1].mac, 0xBB, sizeof(guess[1].mac));
	challenge_encode_guesses(params, items, 2, 7, -1);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.count, 5);
	assert_int_equal(view.length[0], 20 + 2 * (4 + TOKEN_ID_BYTES));
	assert_int_equal(view.length[1], 20 + 4 + CODE_MAC_BYTES + 4); /* what cannot be a code is null */
	assert_memory_equal(view.value[2], "\0\7", 2);
	assert_null(view.value[3]);
	assert_null(view.value[4]);
	challenge_encode_guesses(params, items, 2, 7, 6);
	assert_int_equal(db_params_view(params, &view), RESULT_OK);
	assert_int_equal(view.length[3], 20 + 4 + CODE_MAC_BYTES + 4);
	assert_memory_equal(view.value[4], "\0\6", 2);
	db_params_free(params);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(verdicts_are_read_in_any_order),
	    cmocka_unit_test(every_verdict_has_its_outcome),
	    cmocka_unit_test(a14_what_makes_no_sense_is_a_fault),
	    cmocka_unit_test(asks_have_one_answer_each),
	    cmocka_unit_test(a_batch_has_one_element_for_each_request),
	    cmocka_unit_test(b5_a_key_that_is_missing_is_named),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
