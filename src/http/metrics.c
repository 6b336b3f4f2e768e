/* metrics.c: what a responder counts, as Prometheus reads it. */
#include "http/metrics.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

void metrics_count_answer(struct metrics *metrics, enum http_error error)
{
	metrics->answers[error]++;
}

void metrics_count_batch(struct metrics *metrics, size_t requests)
{
	metrics->batches++;
	metrics->batched += requests;
}

uint64_t metrics_answers(const struct metrics *metrics)
{
	uint64_t sum = 0;

	for (size_t i = 0; i <= HTTP_ERRORS; i++)
		sum += metrics->answers[i];
	return sum;
}

__attribute__((format(printf, 4, 5))) static size_t append(char *text, size_t size, size_t length, const char *format,
							   ...)
{
	va_list arguments;
	int more;

	va_start(arguments, format);
	more = vsnprintf(text + length, size - length, format, arguments);
	va_end(arguments);
	return more < 0 || (size_t)more >= size - length ? length : length + (size_t)more;
}

void metrics_write(const struct metrics *metrics, const char *program, char *text, size_t size)
{
	size_t length = 0;

	text[0] = '\0';
	length = append(text, size, length, "# TYPE otpd_answers_total counter\n");
	for (int i = 0; i <= HTTP_ERRORS; i++)
		length =
		    append(text, size, length, "otpd_answers_total{program=\"%s\",answer=\"%s\"} %" PRIu64 "\n",
			   program, i == HTTP_ERRORS ? "ok" : http_error_slug((enum http_error)i), metrics->answers[i]);
	length = append(
	    text, size, length,
	    "# TYPE otpd_batches_total counter\notpd_batches_total{program=\"%s\"} %" PRIu64
	    "\n# TYPE otpd_batched_requests_total counter\notpd_batched_requests_total{program=\"%s\"} %" PRIu64 "\n",
	    program, metrics->batches, program, metrics->batched);
	length = append(text, size, length,
			"# TYPE otpd_requests_waiting gauge\notpd_requests_waiting{program=\"%s\"} %zu\n"
			"# TYPE otpd_connections gauge\notpd_connections{program=\"%s\"} %zu\n"
			"# TYPE otpd_database_up gauge\notpd_database_up{program=\"%s\"} %d\n",
			program, metrics->queue_length, program, metrics->connections, program, metrics->database_up);
	text[length] = '\0';
}
