/* test_metrics.c: what a responder counts, in the exposition format. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "http/metrics.h"

static void every_outcome_has_its_counter(void **state)
{
	struct metrics metrics = {.queue_length = 3, .connections = 4, .database_up = true};
	char text[METRICS_TEXT_MAX];
	char line[128];

	(void)state;
	for (enum http_outcome outcome = HTTP_OK; outcome < HTTP_OUTCOMES; outcome++)
		for (int i = 0; i <= (int)outcome; i++)
			metrics_count_answer(&metrics, outcome);
	metrics_count_batch(&metrics, 5);
	metrics_count_batch(&metrics, 2);
	assert_int_equal(metrics_answers(&metrics), HTTP_OUTCOMES * (HTTP_OUTCOMES + 1) / 2);
	metrics_write(&metrics, "otp-test", text, sizeof(text));
	for (enum http_outcome outcome = HTTP_OK; outcome < HTTP_OUTCOMES; outcome++) {
		(void)snprintf(line, sizeof(line), "\notpd_answers_total{program=\"otp-test\",answer=\"%s\"} %d\n",
			       http_outcome_slug(outcome), (int)outcome + 1);
		if (strstr(text, line) == NULL)
			fail_msg("no %s in %s", line, text);
	}
	assert_non_null(
	    strstr(text, "\n# TYPE otpd_batches_total counter\notpd_batches_total{program=\"otp-test\"} 2\n"));
	assert_non_null(strstr(text, "\notpd_batched_requests_total{program=\"otp-test\"} 7\n"));
	assert_non_null(
	    strstr(text, "\n# TYPE otpd_requests_waiting gauge\notpd_requests_waiting{program=\"otp-test\"} 3\n"));
	assert_non_null(strstr(text, "\notpd_connections{program=\"otp-test\"} 4\n"));
	assert_non_null(strstr(text, "\notpd_database_up{program=\"otp-test\"} 1\n"));
	assert_int_equal(text[strlen(text) - 1], '\n');
}

static void the_largest_numbers_fit(void **state)
{
	struct metrics metrics;
	char text[METRICS_TEXT_MAX];
	struct http_answer answer;

	(void)state;
	memset(&metrics, 0xFF, sizeof(metrics));
	metrics.database_up = metrics.outbox_full = true;
	metrics_write(&metrics, "otp-generate", text, sizeof(text));
	assert_non_null(strstr(text, "otpd_outbox_full"));
	assert_int_equal(http_content(&answer, "text/plain; version=0.0.4; charset=utf-8", text), RESULT_OK);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_outcome_has_its_counter),
	    cmocka_unit_test(the_largest_numbers_fit),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
