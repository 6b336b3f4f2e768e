/* binding.h: the members of a request that say what its code counts for. */
#ifndef OTP_BINDING_H
#define OTP_BINDING_H

#include <stdbool.h>

#include "http/http.h"
#include "otp/code.h"
#include "otp/slug.h"
#include "otp/token.h"

struct json_t;

/* A copy: the request is gone when the database answers. */
struct binding {
	char purpose[SLUG_MAX + 1]; /* "": none */
	bool has_context;
	unsigned char context[CODE_CONTEXT_BYTES];
};

/* Reads purpose and context; the token is the request's own. Unless HTTP_OK, *detail says what is wrong. */
enum http_outcome binding_read(struct binding *binding, const struct json_t *json,
			       const unsigned char token[static TOKEN_BYTES], const char **detail);

/* As the database and code_mac want them: NULL for none. */
const char *binding_purpose(const struct binding *binding);
const unsigned char *binding_context(const struct binding *binding);

#endif
