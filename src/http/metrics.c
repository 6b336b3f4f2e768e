/* metrics.c: what a responder counts, as Prometheus reads it. */
#include "http/metrics.h"

#include <inttypes.h>

#include "base/text.h"

void metrics_count_answer(struct metrics *metrics, enum http_outcome outcome)
{
	metrics->answers[outcome]++;
}

void metrics_count_batch(struct metrics *metrics, size_t requests)
{
	metrics->batches++;
	metrics->batched += requests;
}

uint64_t metrics_answers(const struct metrics *metrics)
{
	uint64_t sum = 0;

	for (enum http_outcome outcome = HTTP_OK; outcome < HTTP_OUTCOMES; outcome++)
		sum += metrics->answers[outcome];
	return sum;
}

static void put_number(struct text *out, const char *type, const char *name, const char *program, uint64_t value)
{
	text_printf(out, "# TYPE %s %s\n%s{program=\"%s\"} %" PRIu64 "\n", name, type, name, program, value);
}

void metrics_write(const struct metrics *metrics, const char *program, char *text, size_t size)
{
	struct text out;

	text_init(&out, text, size);
	text_put(&out, "# TYPE otpd_answers_total counter\n");
	for (enum http_outcome outcome = HTTP_OK; outcome < HTTP_OUTCOMES; outcome++)
		text_printf(&out, "otpd_answers_total{program=\"%s\",answer=\"%s\"} %" PRIu64 "\n", program,
			    http_outcome_slug(outcome), metrics->answers[outcome]);
	put_number(&out, "counter", "otpd_batches_total", program, metrics->batches);
	put_number(&out, "counter", "otpd_batched_requests_total", program, metrics->batched);
	put_number(&out, "gauge", "otpd_requests_waiting", program, metrics->queue_length);
	put_number(&out, "gauge", "otpd_connections", program, metrics->connections);
	put_number(&out, "gauge", "otpd_database_up", program, metrics->database_up);
	put_number(&out, "gauge", "otpd_outbox_full", program, metrics->outbox_full);
}
