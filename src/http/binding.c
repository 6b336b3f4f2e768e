/* binding.c: the members of a request that say what its code counts for. */
#include "http/binding.h"

#include <string.h>

#include "base/jsondoc.h"

#define CONTEXT_MAX 256U /* bytes */

enum http_outcome binding_read(struct binding *binding, const struct json_t *json,
			       const unsigned char token[static TOKEN_BYTES], const char **detail)
{
	size_t length = 0;
	const char *purpose = jsondoc_text(json, "purpose", &length);

	*binding = (struct binding){.has_context = jsondoc_member(json, "context") != NULL};
	if (jsondoc_member(json, "purpose") != NULL && (purpose == NULL || !slug_is(purpose, length))) {
		*detail = "The member purpose must be 1 to 32 characters of a-z, 0-9 and -.";
		return HTTP_BAD_REQUEST;
	}
	if (purpose != NULL)
		memcpy(binding->purpose, purpose, length);
	if (binding->has_context) {
		const char *context = jsondoc_text(json, "context", &length);

		if (context == NULL || length == 0 || length > CONTEXT_MAX) {
			*detail = "The member context must be a string of 1 to 256 bytes.";
			return HTTP_BAD_REQUEST;
		}
		code_context(binding->context, token, context, length);
	}
	return HTTP_OK;
}

const char *binding_purpose(const struct binding *binding)
{
	return binding->purpose[0] != '\0' ? binding->purpose : NULL;
}

const unsigned char *binding_context(const struct binding *binding)
{
	return binding->has_context ? binding->context : NULL;
}
