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
	const char *accept_language; /* headers, untrusted; "": absent */
	const char *authorization;
	const char *origin;
	uint64_t now_ms; /* a monotonic clock */
};

/* What a program says to a request. */
struct responder_reply {
	uint64_t clock_ms; /* the database's clock, since 1970 */
	uint64_t now_ms;

	/* Empty at first. With a success: the answer, or still empty, and the request goes to the database once more,
	   by the call and key that its item now has. */
	struct http_answer *answer;

	/* With a refusal, as http_refuse has them. */
	int number;
	const char *detail;
};

/* A path, POST only. Reads a request into its struct, its item included; HTTP_OK: its answer will come. */
struct responder_route {
	const char *path;
	enum http_outcome (*read)(void *context, struct batch_item *item, const struct responder_request *request,
				  struct responder_reply *reply);
};

/* What makes a responder the one it is. A request is a struct whose first member is its struct batch_item; context is
   pump_work's, and comes first in its calls. */
struct responder {
	enum program program;
	const struct responder_route *routes; /* ended by a NULL path */
	size_t request_bytes;
	struct pump_work work;

	/* Says what a request's verdict means. */
	enum http_outcome (*answer)(void *context, struct batch_item *item, size_t verdict,
				    struct responder_reply *reply);

	/* A request that was read ends without a verdict; NULL: nothing is to be done. */
	void (*give_up)(void *context, struct batch_item *item, uint64_t now_ms);

	/* SIGHUP has come. */
	void (*reload)(void *context);
};

/* Serves until SIGTERM, then until the web server has left; returns the exit status. */
int responder_run(const struct responder *responder, const struct settings *settings);

#endif
