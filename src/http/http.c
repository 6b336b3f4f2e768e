/* http.c: the JSON that comes in and the answers that go out, by the table of the HTTP contract. */
#include "http/http.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/jsondoc.h"
#include "base/text.h"

#define NO_NUMBER NULL

static const struct refusal {
	const char *status;
	const char *message;
	const char *slug;
	const char *number; /* the member that carries the number */
} refusals[HTTP_OUTCOMES] = {
    [HTTP_OK] = {"200 OK", "", "ok", NO_NUMBER},
    [HTTP_BAD_REQUEST] = {"400 Bad Request", "Error: Bad Request.", "bad_request", NO_NUMBER},
    [HTTP_INVALID_EMAIL] = {"422 Unprocessable Entity", "Error: Email field is required and must be valid.",
			    "invalid_email", NO_NUMBER},
    [HTTP_UNKNOWN_TOKEN] = {"401 Unauthorized", "Error: Invalid password.", "unknown_token", NO_NUMBER},
    [HTTP_WRONG_PASSWORD] = {"401 Unauthorized", "Error: Invalid password.", "wrong_password", "attempts_left"},
    [HTTP_EXPIRED] = {"401 Unauthorized", "Error: Invalid password.", "expired", NO_NUMBER},
    [HTTP_USED] = {"401 Unauthorized", "Error: Invalid password.", "used", NO_NUMBER},
    [HTTP_EXHAUSTED] = {"401 Unauthorized", "Error: Invalid password.", "exhausted", NO_NUMBER},
    [HTTP_REVOKED] = {"401 Unauthorized", "Error: Invalid password.", "revoked", NO_NUMBER},
    [HTTP_WRONG_PURPOSE] = {"401 Unauthorized", "Error: Invalid password.", "wrong_purpose", NO_NUMBER},
    [HTTP_NOT_A_CODE] = {"401 Unauthorized", "Error: Invalid password.", "not_a_code", NO_NUMBER},
    [HTTP_UNKNOWN_API_KEY] = {"401 Unauthorized", "Error: Unknown API key.", "unknown_key", NO_NUMBER},
    [HTTP_WRONG_ORIGIN] = {"403 Forbidden", "Error: Origin is not allowed.", "origin_not_allowed", NO_NUMBER},
    [HTTP_WRONG_DOMAIN] = {"422 Unprocessable Entity", "Error: Email domain is not allowed.", "domain_not_allowed",
			   NO_NUMBER},
    [HTTP_NOT_FOUND] = {"404 Not Found", "Error: Not found.", "not_found", NO_NUMBER},
    [HTTP_METHOD_NOT_ALLOWED] = {"405 Method Not Allowed", "Error: Method not allowed.", "method_not_allowed",
				 NO_NUMBER},
    [HTTP_TOO_LARGE] = {"413 Payload Too Large", "Error: Request body is too large.", "payload_too_large", NO_NUMBER},
    [HTTP_UNSUPPORTED_TYPE] = {"415 Unsupported Media Type", "Error: Content-Type must be application/json.",
			       "unsupported_media_type", NO_NUMBER},
    [HTTP_LIMITED] = {"429 Too Many Requests", "Error: Too many requests.", "rate_limited", "retry_after"},
    [HTTP_OVER_BUDGET] = {"429 Too Many Requests", "Error: Too many requests.", "budget_exhausted", "retry_after"},
    [HTTP_INTERNAL] = {"500 Internal Server Error", "Error: Operation failed.", "internal", NO_NUMBER},
    [HTTP_UNAVAILABLE] = {"503 Service Unavailable", "Error: Operation failed.", "unavailable", NO_NUMBER},
};

#define JSON_TYPE "application/json; charset=utf-8"

/* An answer as far as its body; headers: "" or whole lines. */
static void begin(struct text *text, struct http_answer *answer, const char *status, const char *type,
		  const char *headers)
{
	text_init(text, answer->text, sizeof(answer->text));
	text_put(text, "Status: ");
	text_put(text, status);
	text_put(text, "\r\nContent-Type: ");
	text_put(text, type);
	text_put(text, "\r\n");
	text_put(text, headers);
	text_put(text, "\r\n");
}

static enum result end(const struct text *text, struct http_answer *answer)
{
	answer->length = text->is_full ? 0 : text->length;
	return text->is_full ? RESULT_FAULT : RESULT_OK;
}

/* The table and its numbers always fit. */
static void refuse(struct http_answer *answer, enum http_outcome outcome, const char *headers, int number,
		   const char *detail)
{
	const struct refusal *refusal = &refusals[outcome];
	struct text text;

	begin(&text, answer, refusal->status, JSON_TYPE, headers);
	text_printf(&text, "{\"message\":\"%s\",\"error\":\"%s\"", refusal->message, refusal->slug);
	if (refusal->number != NULL)
		text_printf(&text, ",\"%s\":%d", refusal->number, number);
	if (detail != NULL)
		text_printf(&text, ",\"detail\":\"%s\"", detail);
	text_put(&text, "}\n");
	(void)!end(&text, answer);
}

void http_refuse(struct http_answer *answer, enum http_outcome outcome, int number, const char *detail)
{
	char headers[64] = "";

	if (outcome == HTTP_UNKNOWN_API_KEY)
		(void)snprintf(headers, sizeof(headers), "WWW-Authenticate: Bearer\r\n");
	if (outcome == HTTP_LIMITED || outcome == HTTP_OVER_BUDGET || outcome == HTTP_UNAVAILABLE)
		(void)snprintf(headers, sizeof(headers), "Retry-After: %d\r\n", number);
	refuse(answer, outcome, headers, number, detail);
}

const char *http_outcome_slug(enum http_outcome outcome)
{
	return refusals[outcome].slug;
}

void http_refuse_method(struct http_answer *answer, const char *allow)
{
	char headers[128] = "";

	snprintf(headers, sizeof(headers), "Allow: %s\r\n", allow);
	refuse(answer, HTTP_METHOD_NOT_ALLOWED, headers, 0, NULL);
}

/* A member of a string, its name in quotes. A text that is NULL has none. */
static bool put_member(struct text *text, const char *name, const char *value)
{
	if (value == NULL)
		return true;
	text_printf(text, ",\"%s\":", name);
	return jsondoc_put_string(text, value);
}

static void put_test(struct text *text, bool is_test)
{
	if (is_test)
		text_put(text, ",\"test\":true");
}

void http_generated(struct http_answer *answer, const struct http_generated *generated)
{
	struct text text;

	begin(&text, answer, "200 OK", JSON_TYPE, "");
	text_printf(&text,
		    "{\"message\":\"Password generated successfully! Please check your email.\","
		    "\"token\":\"%s\",\"expires_in\":%d,\"resend_after\":%d,\"reference\":\"%s\"",
		    generated->token, generated->expires_in, generated->resend_after, generated->reference);
	put_test(&text, generated->is_test);
	text_put(&text, "}\n");
	(void)!end(&text, answer);
}

enum result http_validated(struct http_answer *answer, const struct http_validated *validated)
{
	struct text text;

	begin(&text, answer, "200 OK", JSON_TYPE, "");
	text_put(&text, "{\"message\":\"Password validated successfully! Enjoy your access.\"");
	if (!put_member(&text, "email", validated->email) || !put_member(&text, "mailbox", validated->mailbox) ||
	    !put_member(&text, "purpose", validated->purpose) || !put_member(&text, "ticket", validated->ticket))
		return RESULT_FAULT;
	put_test(&text, validated->is_test);
	text_put(&text, "}\n");
	return end(&text, answer);
}

void http_revoked(struct http_answer *answer)
{
	struct text text;

	begin(&text, answer, "200 OK", JSON_TYPE, "");
	text_put(&text, "{\"message\":\"Token revoked.\"}\n");
	(void)!end(&text, answer);
}

enum result http_delivery(struct http_answer *answer, const struct http_delivery *delivery)
{
	struct text text;

	begin(&text, answer, "200 OK", JSON_TYPE, "");
	text_printf(&text, "{\"message\":\"Delivery status.\",\"state\":\"%s\"", delivery->state);
	if (!put_member(&text, "sent_at", delivery->sent_at))
		return RESULT_FAULT;
	text_printf(&text, ",\"attempts\":%d", delivery->attempts);
	if (!put_member(&text, "reason", delivery->reason))
		return RESULT_FAULT;
	put_test(&text, delivery->is_test);
	text_put(&text, "}\n");
	return end(&text, answer);
}

enum result http_content(struct http_answer *answer, const char *type, const char *body)
{
	struct text text;

	begin(&text, answer, "200 OK", type, "");
	text_put(&text, body);
	return end(&text, answer);
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
