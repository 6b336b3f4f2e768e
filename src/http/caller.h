/* caller.h: which application a request comes from, and whether it may call. */
#ifndef OTP_CALLER_H
#define OTP_CALLER_H

#include <stdbool.h>

#include "http/http.h"
#include "http/responder.h"
#include "otp/applications.h"

/* What is kept of an application while the database is asked; the file may be read anew meanwhile. */
struct caller {
	char application[SLUG_MAX + 1]; /* "": the default one */
	bool has_key;
};

/* By the key in Authorization: Bearer, whose application it is; a key that is not known is no call without one (A20).
   Else by the member application, which must be public, or, without it, the default one. application is valid until
   the set is loaded anew. Unless HTTP_OK, *detail says what is wrong. */
enum http_outcome caller_identify(struct caller *caller, const struct application **application,
				  const struct applications *set, const struct responder_request *request,
				  const char **detail);

/* As the database wants it: NULL for the default one. */
const char *caller_application(const struct caller *caller);

#endif
