/* http.h: the JSON that comes in and the answers that go out, by the table of the HTTP contract. */
#ifndef OTP_HTTP_H
#define OTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "base/result.h"

/* How a request ends. The messages are those of the replaced app, word for word; clients depend on them. */
enum http_outcome {
	HTTP_OK,
	HTTP_BAD_REQUEST,
	HTTP_INVALID_EMAIL,
	HTTP_UNKNOWN_TOKEN,
	HTTP_WRONG_PASSWORD, /* number: attempts_left */
	HTTP_EXPIRED,
	HTTP_USED,
	HTTP_EXHAUSTED,
	HTTP_REVOKED,
	HTTP_WRONG_PURPOSE,
	HTTP_NOT_A_CODE,
	HTTP_UNKNOWN_API_KEY,
	HTTP_WRONG_ORIGIN,
	HTTP_WRONG_DOMAIN,
	HTTP_NOT_FOUND,
	HTTP_METHOD_NOT_ALLOWED,
	HTTP_TOO_LARGE,
	HTTP_UNSUPPORTED_TYPE,
	HTTP_LIMITED, /* number: retry_after, seconds, so for the next */
	HTTP_OVER_BUDGET,
	HTTP_INTERNAL,
	HTTP_UNAVAILABLE, /* number: Retry-After, seconds */
	HTTP_OUTCOMES
};

/* A whole FastCGI answer: status line, headers, empty line, body. */
#define HTTP_ANSWER_MAX 6144U
struct http_answer {
	size_t length;
	char text[HTTP_ANSWER_MAX];
};

/* An answer to any outcome but HTTP_OK. number goes where the outcome's comment says; ignored elsewhere. detail:
   static, for a person: ASCII without quotes and backslashes; NULL: none. */
void http_refuse(struct http_answer *answer, enum http_outcome outcome, int number, const char *detail);

/* The outcome's slug, as in answers and metrics; "ok" for success. */
const char *http_outcome_slug(enum http_outcome outcome);

/* 405 with the methods that would do, such as "POST, OPTIONS". */
void http_refuse_method(struct http_answer *answer, const char *allow);

/* 200 after generate. token: base64url. is_test: no mail is sent. */
struct http_generated {
	const char *token;
	const char *reference;
	int expires_in;
	int resend_after;
	bool is_test;
};
void http_generated(struct http_answer *answer, const struct http_generated *generated);

/* 200 after validate, all UTF-8. purpose: NULL: none. */
struct http_validated {
	const char *email; /* as asked for */
	const char *mailbox;
	const char *purpose;
	const char *ticket;
	bool is_test;
};
/* RESULT_FAULT if a text is no UTF-8 or too long; so for the next. */
OTP_MUST_CHECK enum result http_validated(struct http_answer *answer, const struct http_validated *validated);

/* 200 after revoke. */
void http_revoked(struct http_answer *answer);

/* 200 after delivery-status. sent_at, reason: NULL: none. */
struct http_delivery {
	const char *state;
	const char *sent_at; /* RFC 3339 */
	const char *reason;
	int attempts;
	bool is_test;
};
OTP_MUST_CHECK enum result http_delivery(struct http_answer *answer, const struct http_delivery *delivery);

/* 200 with any body of a given Content-Type. RESULT_FAULT if it does not fit. */
OTP_MUST_CHECK enum result http_content(struct http_answer *answer, const char *type, const char *body);

/* Is a request's Content-Type JSON, or absent? */
bool http_is_json(const char *content_type);

#endif
