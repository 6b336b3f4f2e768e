/* caller.c: which application a request comes from, and whether it may call. */
#include "http/caller.h"

#include <string.h>
#include <strings.h>

#include "base/jsondoc.h"
#include "otp/api_key.h"

/* The credentials of the scheme Bearer, "" if it has none; NULL: another scheme, for which a proxy in front may have
   asked, or no header. */
static const char *find_bearer(const char *authorization)
{
	static const char scheme[] = "Bearer";
	const char *rest = authorization + sizeof(scheme) - 1;

	if (strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0 || (rest[0] != ' ' && rest[0] != '\0'))
		return NULL;
	return rest + strspn(rest, " ");
}

static const struct application *find_by_key(const struct applications *set, const char *key)
{
	unsigned char hash[API_KEY_HASH_BYTES];

	return api_key_hash(hash, key, strlen(key)) == RESULT_OK ? applications_find_key(set, hash) : NULL;
}

static enum http_outcome identify_by_key(const struct application **application, const struct applications *set,
					 const char *key, const struct json_t *json, const char **detail)
{
	size_t length = 0;
	const char *name = jsondoc_text(json, "application", &length);

	*application = find_by_key(set, key);
	if (*application == NULL) {
		*detail = "The key in Authorization is not, or no longer, in the file of applications.";
		return HTTP_UNKNOWN_API_KEY;
	}
	if (jsondoc_member(json, "application") != NULL &&
	    (name == NULL || applications_find(set, name, length) != *application)) {
		*detail = "The member application is not the application of the key.";
		return HTTP_BAD_REQUEST;
	}
	return HTTP_OK;
}

static enum http_outcome identify_public(const struct application **application, const struct applications *set,
					 const struct responder_request *request, const char **detail)
{
	size_t length = 0;
	const char *name = jsondoc_text(request->json, "application", &length);

	if (jsondoc_member(request->json, "application") != NULL && (name == NULL || !slug_is(name, length))) {
		*detail = "The member application must be 1 to 32 characters of a-z, 0-9 and -.";
		return HTTP_BAD_REQUEST;
	}
	*application = name != NULL ? applications_find(set, name, length) : applications_default(set);
	if (*application == NULL || !(*application)->is_public) {
		*detail = "This application is called with its key only, in Authorization: Bearer.";
		return HTTP_UNKNOWN_API_KEY;
	}
	if (request->origin[0] != '\0' &&
	    !application_allows_origin(*application, request->origin, strlen(request->origin))) {
		*detail = "The application does not name this origin.";
		return HTTP_WRONG_ORIGIN;
	}
	return HTTP_OK;
}

enum http_outcome caller_identify(struct caller *caller, const struct application **application,
				  const struct applications *set, const struct responder_request *request,
				  const char **detail)
{
	const char *key = find_bearer(request->authorization);
	enum http_outcome outcome = key != NULL ? identify_by_key(application, set, key, request->json, detail)
						: identify_public(application, set, request, detail);

	*caller = (struct caller){.has_key = key != NULL};
	if (outcome == HTTP_OK && !(*application)->is_default)
		memcpy(caller->application, (*application)->name, sizeof(caller->application));
	return outcome;
}

const char *caller_application(const struct caller *caller)
{
	return caller->application[0] != '\0' ? caller->application : NULL;
}
