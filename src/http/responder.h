/* responder.h: what both responders share: requests come in, batches go to the database, answers go out. */
#ifndef OTP_RESPONDER_H
#define OTP_RESPONDER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/config.h"
#include "db/db.h"
#include "db/db_params.h"
#include "http/batch.h"
#include "http/http.h"

/* The statements of a responder, in this order, before the NULL name. */
enum responder_statement { RESPONDER_BATCH, RESPONDER_PING, RESPONDER_NOTIFY };

#define RESPONDER_PING_SQL "select 1"

/* What makes a responder the one it is. A job is one request: a struct whose first member is its struct batch_item. */
struct responder {
	enum program program;
	const char *path; /* the route, POST only */
	size_t job_bytes;
	const struct db_statement *statements;
	bool may_retry; /* a batch that the server refused may be sent again, request by request */
	void *context;  /* comes first in the calls below */

	/* Reads a request into its job, item.key included; true. Or fills answer; false. clock_ms: the database's
	 * clock. */
	bool (*read)(void *context, void *job, const struct http_json *json, uint64_t clock_ms, uint64_t now_ms,
		     struct http_answer *answer, enum http_error *error);

	/* Builds the call for a batch. */
	void (*encode)(void *context, struct db_params *params, struct batch_item **items, size_t count);

	/* Takes the verdicts out of the rows of that batch. RESULT_FAULT: they make no sense; nobody succeeds then. */
	enum result (*decode)(void *context, const struct db_rows *rows, size_t count);

	/* Does the verdict of item i hold for all who had asked with its key by now? */
	bool (*is_final)(void *context, size_t i);

	/* Fills the answer of a job by verdict i; its error, or HTTP_ERRORS for success. */
	enum http_error (*answer)(void *context, size_t i, const void *job, struct http_answer *answer);
};

/* Serves until SIGTERM, then until the web server has left; returns the exit status. */
int responder_run(const struct responder *responder, const struct config *config);

#endif
