/* test_http.c: the kept messages word for word, answers that no input can break out of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/jsondoc.h"
#include "http/http.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void refusals_are_word_for_word(void **state)
{
	(void)state;
	static const struct {
		enum http_outcome error;
		const char *status, *headers, *body;
	} cases[] = {
	    {HTTP_BAD_REQUEST, "400 Bad Request", "",
	     "{\"message\":\"Error: Bad Request.\",\"error\":\"bad_request\"}"},
	    {HTTP_INVALID_EMAIL, "422 Unprocessable Entity", "",
	     "{\"message\":\"Error: Email field is required and must be valid.\",\"error\":\"invalid_email\"}"},
	    {HTTP_UNKNOWN_TOKEN, "401 Unauthorized", "",
	     "{\"message\":\"Error: Invalid password.\",\"error\":\"unknown_token\"}"},
	    {HTTP_WRONG_PASSWORD, "401 Unauthorized", "",
	     "{\"message\":\"Error: Invalid password.\",\"error\":\"wrong_password\",\"attempts_left\":7}"},
	    {HTTP_EXPIRED, "401 Unauthorized", "", "{\"message\":\"Error: Invalid password.\",\"error\":\"expired\"}"},
	    {HTTP_USED, "401 Unauthorized", "", "{\"message\":\"Error: Invalid password.\",\"error\":\"used\"}"},
	    {HTTP_EXHAUSTED, "401 Unauthorized", "",
	     "{\"message\":\"Error: Invalid password.\",\"error\":\"exhausted\"}"},
	    {HTTP_REVOKED, "401 Unauthorized", "", "{\"message\":\"Error: Invalid password.\",\"error\":\"revoked\"}"},
	    {HTTP_WRONG_PURPOSE, "401 Unauthorized", "",
	     "{\"message\":\"Error: Invalid password.\",\"error\":\"wrong_purpose\"}"},
	    {HTTP_NOT_A_CODE, "401 Unauthorized", "",
	     "{\"message\":\"Error: Invalid password.\",\"error\":\"not_a_code\"}"},
	    {HTTP_UNKNOWN_API_KEY, "401 Unauthorized", "WWW-Authenticate: Bearer\r\n",
	     "{\"message\":\"Error: Unknown API key.\",\"error\":\"unknown_key\"}"},
	    {HTTP_WRONG_ORIGIN, "403 Forbidden", "",
	     "{\"message\":\"Error: Origin is not allowed.\",\"error\":\"origin_not_allowed\"}"},
	    {HTTP_WRONG_DOMAIN, "422 Unprocessable Entity", "",
	     "{\"message\":\"Error: Email domain is not allowed.\",\"error\":\"domain_not_allowed\"}"},
	    {HTTP_OVER_BUDGET, "429 Too Many Requests", "Retry-After: 7\r\n",
	     "{\"message\":\"Error: Too many requests.\",\"error\":\"budget_exhausted\",\"retry_after\":7}"},
	    {HTTP_NOT_FOUND, "404 Not Found", "", "{\"message\":\"Error: Not found.\",\"error\":\"not_found\"}"},
	    {HTTP_TOO_LARGE, "413 Payload Too Large", "",
	     "{\"message\":\"Error: Request body is too large.\",\"error\":\"payload_too_large\"}"},
	    {HTTP_UNSUPPORTED_TYPE, "415 Unsupported Media Type", "",
	     "{\"message\":\"Error: Content-Type must be application/json.\",\"error\":\"unsupported_media_type\"}"},
	    {HTTP_LIMITED, "429 Too Many Requests", "Retry-After: 7\r\n",
	     "{\"message\":\"Error: Too many requests.\",\"error\":\"rate_limited\",\"retry_after\":7}"},
	    {HTTP_INTERNAL, "500 Internal Server Error", "",
	     "{\"message\":\"Error: Operation failed.\",\"error\":\"internal\"}"},
	    {HTTP_UNAVAILABLE, "503 Service Unavailable", "Retry-After: 7\r\n",
	     "{\"message\":\"Error: Operation failed.\",\"error\":\"unavailable\"}"},
	};
	assert_int_equal(COUNT(cases), HTTP_OUTCOMES - 2); /* all but success and 405, which is below */
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct http_answer answer;
		char expected[1024];
		(void)snprintf(expected, sizeof(expected),
			       "Status: %s\r\nContent-Type: application/json; charset=utf-8\r\n%s\r\n%s\n",
			       cases[i].status, cases[i].headers, cases[i].body);
		http_refuse(&answer, cases[i].error, 7, NULL);
		assert_string_equal(answer.text, expected);
		assert_int_equal(answer.length, strlen(expected));
		(void)snprintf(expected, sizeof(expected), "\"error\":\"%s\"", http_outcome_slug(cases[i].error));
		assert_non_null(strstr(answer.text, expected));
	}
}

static void a_wrong_method_names_the_right_ones(void **state)
{
	(void)state;
	struct http_answer answer;
	http_refuse_method(&answer, "POST, OPTIONS");
	assert_string_equal(answer.text,
			    "Status: 405 Method Not Allowed\r\nContent-Type: application/json; charset=utf-8\r\n"
			    "Allow: POST, OPTIONS\r\n\r\n"
			    "{\"message\":\"Error: Method not allowed.\",\"error\":\"method_not_allowed\"}\n");
}

static void a14_no_refusal_looks_like_success(void **state)
{
	(void)state;
	for (enum http_outcome error = HTTP_OK + 1; error < HTTP_OUTCOMES; error++) {
		struct http_answer answer;
		http_refuse(&answer, error, 0, NULL);
		assert_true(strncmp(answer.text, "Status: 4", 9) == 0 || strncmp(answer.text, "Status: 5", 9) == 0);
	}
}

static void successes_are_word_for_word(void **state)
{
	(void)state;
	struct http_answer answer;
	http_generated(&answer,
		       &(struct http_generated){"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "KFD", 600, 60, false});
	assert_string_equal(answer.text, "Status: 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\r\n"
					 "{\"message\":\"Password generated successfully! Please check your email.\","
					 "\"token\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"expires_in\":600,"
					 "\"resend_after\":60,\"reference\":\"KFD\"}\n");
	assert_int_equal(answer.length, strlen(answer.text));
	assert_int_equal(http_validated(&answer, &(struct http_validated){.email = "user@example.com"}), RESULT_OK);
	assert_string_equal(answer.text, "Status: 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\r\n"
					 "{\"message\":\"Password validated successfully! Enjoy your access.\","
					 "\"email\":\"user@example.com\"}\n");
	assert_int_equal(http_validated(&answer, &(struct http_validated){"User@Example.com", "user@example.com",
									  "sign-in", "T", true}),
			 RESULT_OK);
	assert_string_equal(strstr(answer.text, "\r\n\r\n") + 4,
			    "{\"message\":\"Password validated successfully! Enjoy your access.\","
			    "\"email\":\"User@Example.com\",\"mailbox\":\"user@example.com\",\"purpose\":\"sign-in\","
			    "\"ticket\":\"T\",\"test\":true}\n");
	assert_int_equal(http_delivery(&answer, &(struct http_delivery){.state = "queued"}), RESULT_OK);
	assert_string_equal(strstr(answer.text, "\r\n\r\n") + 4,
			    "{\"message\":\"Delivery status.\",\"state\":\"queued\",\"attempts\":0}\n");
	assert_int_equal(
	    http_delivery(&answer, &(struct http_delivery){"sent", "2026-01-02T03:04:05Z", "250 \"ok\"", 1, false}),
	    RESULT_OK);
	assert_string_equal(strstr(answer.text, "\r\n\r\n") + 4,
			    "{\"message\":\"Delivery status.\",\"state\":\"sent\",\"sent_at\":\"2026-01-02T03:04:05Z\","
			    "\"attempts\":1,\"reason\":\"250 \\\"ok\\\"\"}\n");
	assert_int_equal(http_content(&answer, "text/plain", "body\n"), RESULT_OK);
	assert_string_equal(answer.text, "Status: 200 OK\r\nContent-Type: text/plain\r\n\r\nbody\n");
}

static void any_stored_email_comes_back_as_json(void **state)
{
	(void)state;
	static const char *const emails[] = {"a\"b\\c@example.com",
					     "user@b\xC3\xBC\143her.de",
					     "!#$%&'*+-/=?^_`{|}~@example.com",
					     "a\r\nSet-Cookie: x@b.c",
					     "",
					     "\x01\x1F"};
	for (size_t i = 0; i < COUNT(emails); i++) {
		struct http_answer answer;
		assert_int_equal(http_validated(&answer, &(struct http_validated){.email = emails[i]}), RESULT_OK);
		const char *body = strstr(answer.text, "\r\n\r\n") + 4;
		json_t *json = json_loads(body, JSON_REJECT_DUPLICATES, NULL);
		assert_non_null(json);
		assert_string_equal(json_string_value(json_object_get(json, "email")), emails[i]);
		assert_int_equal(json_object_size(json), 2);
		json_decref(json);
	}
}

static void what_does_not_fit_or_is_no_utf8_is_a_fault(void **state)
{
	(void)state;
	struct http_answer answer;
	static char text[HTTP_ANSWER_MAX + 1];
	assert_int_equal(http_validated(&answer, &(struct http_validated){.email = "caf\xE9@example.com"}),
			 RESULT_FAULT);
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(http_validated(&answer, &(struct http_validated){.email = text}), RESULT_FAULT);
	assert_int_equal(http_content(&answer, "text/plain", text), RESULT_FAULT);
	size_t headers = strlen("Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n");
	text[HTTP_ANSWER_MAX - 1 - headers] = '\0';
	assert_int_equal(http_content(&answer, "text/plain", text), RESULT_OK);
	assert_int_equal(answer.length, HTTP_ANSWER_MAX - 1);
}

static void a_content_type_is_json_or_absent(void **state)
{
	(void)state;
	static const char *const right[] = {"",
					    "application/json",
					    "application/json; charset=utf-8",
					    "Application/JSON",
					    "application/json ;charset=UTF-8",
					    "application/json;"};
	static const char *const wrong[] = {"text/plain",
					    "application/x-www-form-urlencoded",
					    "application/jsonx",
					    "application/json-patch+json",
					    "application",
					    "text/application/json",
					    "application/json, text/html",
					    " "};
	for (size_t i = 0; i < COUNT(right); i++)
		if (!http_is_json(right[i]))
			fail_msg("refused: %s", right[i]);
	for (size_t i = 0; i < COUNT(wrong); i++)
		if (http_is_json(wrong[i]))
			fail_msg("accepted: %s", wrong[i]);
}

static int start(void **state)
{
	(void)state;
	jsondoc_start();
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(refusals_are_word_for_word),
	    cmocka_unit_test(a_wrong_method_names_the_right_ones),
	    cmocka_unit_test(a14_no_refusal_looks_like_success),
	    cmocka_unit_test(successes_are_word_for_word),
	    cmocka_unit_test(any_stored_email_comes_back_as_json),
	    cmocka_unit_test(what_does_not_fit_or_is_no_utf8_is_a_fault),
	    cmocka_unit_test(a_content_type_is_json_or_absent),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, start, NULL);
}
