/* metrics.h: what a responder counts, as Prometheus reads it. */
#ifndef OTP_METRICS_H
#define OTP_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/http.h"

#define METRICS_TEXT_MAX 5632U

struct metrics {
	uint64_t answers[HTTP_OUTCOMES];
	uint64_t batches;
	uint64_t batched;
	size_t queue_length;
	size_t connections;
	bool database_up;
	bool outbox_full;
};

void metrics_count_answer(struct metrics *metrics, enum http_outcome outcome);
void metrics_count_batch(struct metrics *metrics, size_t requests);
uint64_t metrics_answers(const struct metrics *metrics);

/* The exposition format, version 0.0.4; cut at size. */
void metrics_write(const struct metrics *metrics, const char *program, char *text, size_t size);

#endif
