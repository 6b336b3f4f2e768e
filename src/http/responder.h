/* responder.h: what both responders share: their routes, their answers, and their life from start to drain. */
#ifndef OTP_RESPONDER_H
#define OTP_RESPONDER_H

#include <stddef.h>
#include <stdint.h>

#include "http/http.h"
#include "http/pump.h"
#include "otp/settings.h"

#define RESPONDER_RETRY_SECONDS 1 /* Retry-After of 503 */

/* A request as a program reads it. */
struct responder_request {
	const struct json_t *json;
	uint64_t clock_ms;           /* the database's clock, since 1970 */
	uint64_t now_ms;             /* a monotonic one */
	const char *accept_language; /* the header, untrusted; "": absent */

	/* For the program to fill in where it refuses: what is wrong, as http_refuse has it. */
	const char *detail;
};

/* What makes a responder the one it is. A request is a struct whose first member is its struct batch_item; context is
   pump_work's, and comes first in its calls. */
struct responder {
	enum program program;
	const char *path; /* the route, POST only */
	size_t request_bytes;
	struct pump_work work;

	/* Reads a request into its struct, item->key included. */
	enum http_outcome (*read)(void *context, struct batch_item *item, struct responder_request *request);

	/* Fills the answer of a request by its verdict. */
	enum http_outcome (*answer)(void *context, const struct batch_item *item, size_t verdict,
				    struct http_answer *answer);
};

/* Serves until SIGTERM, then until the web server has left; returns the exit status. */
int responder_run(const struct responder *responder, const struct settings *settings);

#endif
