/* fcgi.h: FastCGI requests through libfcgi, driven from the event loop: no connection holds a thread. */
#ifndef OTP_FCGI_H
#define OTP_FCGI_H

#include <stdbool.h>
#include <stddef.h>

#include "base/loop.h"
#include "base/result.h"

#define FCGI_BODY_MAX 16384U

struct fcgi_server;
struct fcgi_request;

/* Called with every request, body and all. It must lead to one fcgi_answer, at once or later. */
typedef void fcgi_handler(void *context, struct fcgi_request *request);

/* Serves listener (owned by the server from now on). data_bytes: the size of the caller's zeroed struct that comes with
   each connection. NULL: out of resources. */
struct fcgi_server *fcgi_new(struct loop *loop, int listener, size_t data_bytes, fcgi_handler *handler, void *context);
void fcgi_free(struct fcgi_server *server);

/* A FastCGI parameter, or "" if it is absent. Untrusted. */
const char *fcgi_parameter(struct fcgi_request *request, const char *name);

/* The body, valid while the handler runs; NUL-terminated, may hold NULs. RESULT_LIMITED: over FCGI_BODY_MAX;
   RESULT_INVALID: its length is absent, malformed or not what came. */
OTP_MUST_CHECK enum result fcgi_body(struct fcgi_request *request, const char **body, size_t *length);

/* The caller's struct of this request's connection, and back. */
void *fcgi_data(struct fcgi_request *request);
struct fcgi_request *fcgi_of_data(void *data);

/* Sends a whole answer ("Status: ...", headers, empty line, body) and ends the request. If the client has gone, nobody
   learns it: what was done stays done. */
void fcgi_answer(struct fcgi_request *request, const char *answer, size_t length);

/* To be called after every round of the loop: connections that ended in it may be used again, and after a storm of
   requests their memory goes back to the system. */
void fcgi_tidy(struct fcgi_server *server);

/* Takes the connections that wait on the listener, then no more; those there are go on until the web server closes
 * them. */
void fcgi_stop_accepting(struct fcgi_server *server);

size_t fcgi_connections(const struct fcgi_server *server);
size_t fcgi_requests_open(const struct fcgi_server *server); /* not answered yet */

#endif
