/* http.c: the JSON that comes in and the answers that go out, by the table of the HTTP contract. */
#include "http/http.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define NO_NUMBER NULL

static const struct refusal {
	const char *status;
	const char *message;
	const char *slug;
	const char *number; /* the member that carries the number */
} refusals[HTTP_ERRORS] = {
    [HTTP_BAD_REQUEST] = {"400 Bad Request", "Error: Bad Request.", "bad_request", NO_NUMBER},
    [HTTP_INVALID_EMAIL] = {"422 Unprocessable Entity", "Error: Email field is required and must be valid.",
			    "invalid_email", NO_NUMBER},
    [HTTP_UNKNOWN_TOKEN] = {"401 Unauthorized", "Error: Invalid password.", "unknown_token", NO_NUMBER},
    [HTTP_WRONG_PASSWORD] = {"401 Unauthorized", "Error: Invalid password.", "wrong_password", "attempts_left"},
    [HTTP_EXPIRED] = {"401 Unauthorized", "Error: Invalid password.", "expired", NO_NUMBER},
    [HTTP_USED] = {"401 Unauthorized", "Error: Invalid password.", "used", NO_NUMBER},
    [HTTP_EXHAUSTED] = {"401 Unauthorized", "Error: Invalid password.", "exhausted", NO_NUMBER},
    [HTTP_NOT_FOUND] = {"404 Not Found", "Error: Not found.", "not_found", NO_NUMBER},
    [HTTP_METHOD_NOT_ALLOWED] = {"405 Method Not Allowed", "Error: Method not allowed.", "method_not_allowed",
				 NO_NUMBER},
    [HTTP_TOO_LARGE] = {"413 Payload Too Large", "Error: Request body is too large.", "payload_too_large", NO_NUMBER},
    [HTTP_UNSUPPORTED_TYPE] = {"415 Unsupported Media Type", "Error: Content-Type must be application/json.",
			       "unsupported_media_type", NO_NUMBER},
    [HTTP_LIMITED] = {"429 Too Many Requests", "Error: Too many requests.", "rate_limited", "retry_after"},
    [HTTP_INTERNAL] = {"500 Internal Server Error", "Error: Operation failed.", "internal", NO_NUMBER},
    [HTTP_UNAVAILABLE] = {"503 Service Unavailable", "Error: Operation failed.", "unavailable", NO_NUMBER},
};

__attribute__((format(printf, 2, 3))) static enum result write_answer(struct http_answer *answer, const char *format,
								      ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(answer->text, sizeof(answer->text), format, arguments);
	va_end(arguments);
	answer->length = 0;
	if (length < 0 || (size_t)length >= sizeof(answer->text))
		return RESULT_FAULT;
	answer->length = (size_t)length;
	return RESULT_OK;
}

/* headers: "" or whole lines. The table and its numbers always fit. */
static void refuse(struct http_answer *answer, enum http_error error, const char *headers, int number)
{
	const struct refusal *refusal = &refusals[error];
	char member[64] = "";

	if (refusal->number != NULL)
		snprintf(member, sizeof(member), ",\"%s\":%d", refusal->number, number);
	(void)!write_answer(answer,
			    "Status: %s\r\nContent-Type: application/json; charset=utf-8\r\n%s\r\n"
			    "{\"message\":\"%s\",\"error\":\"%s\"%s}\n",
			    refusal->status, headers, refusal->message, refusal->slug, member);
}

void http_refuse(struct http_answer *answer, enum http_error error, int number)
{
	char headers[64] = "";

	if (error == HTTP_LIMITED || error == HTTP_UNAVAILABLE)
		snprintf(headers, sizeof(headers), "Retry-After: %d\r\n", number);
	refuse(answer, error, headers, number);
}

const char *http_error_slug(enum http_error error)
{
	return refusals[error].slug;
}

void http_refuse_method(struct http_answer *answer, const char *allow)
{
	char headers[128] = "";

	snprintf(headers, sizeof(headers), "Allow: %s\r\n", allow);
	refuse(answer, HTTP_METHOD_NOT_ALLOWED, headers, 0);
}

void http_generated(struct http_answer *answer, const char *token, int expires_in, int resend_after)
{
	(void)!write_answer(answer,
			    "Status: 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\r\n"
			    "{\"message\":\"Password generated successfully! Please check your email.\","
			    "\"token\":\"%s\",\"expires_in\":%d,\"resend_after\":%d}\n",
			    token, expires_in, resend_after);
}

enum result http_validated(struct http_answer *answer, const char *email)
{
	json_t *string = json_string(email);
	char *quoted = json_dumps(string, JSON_ENCODE_ANY);
	enum result result = RESULT_FAULT;

	if (quoted != NULL)
		result = write_answer(answer,
				      "Status: 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\r\n"
				      "{\"message\":\"Password validated successfully! Enjoy your access.\","
				      "\"email\":%s}\n",
				      quoted);
	free(quoted);
	json_decref(string);
	return result;
}

enum result http_content(struct http_answer *answer, const char *type, const char *body)
{
	return write_answer(answer, "Status: 200 OK\r\nContent-Type: %s\r\n\r\n%s", type, body);
}

bool http_is_json(const char *content_type)
{
	static const char json[] = "application/json";
	const char *rest;

	if (content_type[0] == '\0')
		return true;
	if (strncasecmp(content_type, json, strlen(json)) != 0)
		return false;
	rest = content_type + strlen(json);
	rest += strspn(rest, " \t");
	return *rest == '\0' || *rest == ';';
}

void http_start(void)
{
	json_object_seed(0); /* from the system's random source: keys chosen to collide shall not */
}

/* struct http_json is jansson's json_t under a name that needs no header of jansson. */
enum result http_parse(struct http_json **json, const char *body, size_t length)
{
	json_t *root = json_loadb(body, length, JSON_REJECT_DUPLICATES, NULL);

	if (!json_is_object(root)) {
		json_decref(root);
		return RESULT_INVALID;
	}
	*json = (struct http_json *)root;
	return RESULT_OK;
}

void http_json_free(struct http_json *json)
{
	json_decref((json_t *)json);
}

const char *http_string(const struct http_json *json, const char *key, size_t *length)
{
	const json_t *value = json_object_get((const json_t *)json, key);

	if (!json_is_string(value))
		return NULL;
	*length = json_string_length(value);
	return json_string_value(value);
}
