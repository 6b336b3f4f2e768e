/* test_http.c: the kept messages word for word, strict JSON (A8), answers that no input can break out of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "http/http.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char detail[HTTP_DETAIL_BYTES];

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
	http_generated(&answer, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", 600, 60);
	assert_string_equal(answer.text, "Status: 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\r\n"
					 "{\"message\":\"Password generated successfully! Please check your email.\","
					 "\"token\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"expires_in\":600,"
					 "\"resend_after\":60}\n");
	assert_int_equal(answer.length, strlen(answer.text));
	assert_int_equal(http_validated(&answer, "user@example.com"), RESULT_OK);
	assert_string_equal(answer.text, "Status: 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n\r\n"
					 "{\"message\":\"Password validated successfully! Enjoy your access.\","
					 "\"email\":\"user@example.com\"}\n");
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
		assert_int_equal(http_validated(&answer, emails[i]), RESULT_OK);
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
	assert_int_equal(http_validated(&answer, "caf\xE9@example.com"), RESULT_FAULT);
	memset(text, 'x', sizeof(text) - 1);
	assert_int_equal(http_validated(&answer, text), RESULT_FAULT);
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

static void assert_no_object(const char *body, size_t length)
{
	static char nothing;
	struct json_t *const before = (struct json_t *)(void *)&nothing;
	struct json_t *json = before;
	if (http_parse(&json, body, length, detail) != RESULT_INVALID)
		fail_msg("accepted: %.*s", (int)length, body);
	assert_ptr_equal(json, before);
}

#define NO_OBJECT(body) assert_no_object((body), sizeof(body) - 1)

static void a8_what_is_no_object_is_refused(void **state)
{
	(void)state;
	NO_OBJECT("");
	NO_OBJECT(" ");
	NO_OBJECT("{");
	NO_OBJECT("{}x");
	NO_OBJECT("{}{}");
	NO_OBJECT("{}\0");
	NO_OBJECT("[]");
	NO_OBJECT("null");
	NO_OBJECT("true");
	NO_OBJECT("42");
	NO_OBJECT("\"password\"");
	NO_OBJECT("{'a':1}");
	NO_OBJECT("{a:1}");
	NO_OBJECT("{\"a\":1,}");
	NO_OBJECT("{\"a\":01}");
	NO_OBJECT("{\"a\":NaN}");
	NO_OBJECT("{\"a\" 1}");
	NO_OBJECT("{\"a\":1 \"b\":2}");
	NO_OBJECT("{\"a\":1}//");
	NO_OBJECT("{\"a\":\"\xFF\"}");
	NO_OBJECT("{\"a\":\"\xC0\xAF\"}");
	NO_OBJECT("{\"a\":\"\xED\xA0\x80\"}");
	NO_OBJECT("{\"a\":\"\\uD800\"}");
	NO_OBJECT("{\"a\":\"\\uDC00\\uD800\"}");
	NO_OBJECT("{\"a\":\"\\x41\"}");
	NO_OBJECT("{\"a\":\"\n\"}");
	NO_OBJECT("{\"a\":1e999}");
	NO_OBJECT("{\"password\":\"1\",\"password\":\"2\"}");
	NO_OBJECT("{\"password\":\"1\",\"pass\\u0077ord\":\"2\"}");
	NO_OBJECT("{\"x\":{\"a\":1,\"a\":2}}");
	static char deep[16384];
	memset(deep, '[', sizeof(deep));
	assert_no_object(deep, sizeof(deep));
	for (size_t i = 0; i + 5 <= sizeof(deep); i += 5)
		memcpy(deep + i, "{\"a\":", 5);
	assert_no_object(deep, sizeof(deep));
}

static void a8_only_strings_count(void **state)
{
	(void)state;
	static const char *const others[] = {"{}",
					     "{\"password\":null}",
					     "{\"password\":123456}",
					     "{\"password\":123456.0}",
					     "{\"password\":true}",
					     "{\"password\":false}",
					     "{\"password\":[\"123456\"]}",
					     "{\"password\":{\"password\":\"123456\"}}",
					     "{\"Password\":\"123456\"}",
					     "{\"password \":\"123456\"}",
					     "{\"\":\"123456\"}"};
	for (size_t i = 0; i < COUNT(others); i++) {
		struct json_t *json;
		size_t length = 77;
		assert_int_equal(http_parse(&json, others[i], strlen(others[i]), detail), RESULT_OK);
		assert_null(http_string(json, "password", &length));
		assert_int_equal(length, 77);
		http_json_free(json);
	}
}

static void strings_are_read_with_their_length(void **state)
{
	(void)state;
	static const char body[] =
	    " {\"a\":\"\",\"b\":\"1\\u00012\",\"c\":\"\\u00e9\\ud83d\\ude00\",\"unknown\":[1,{}],"
	    "\"d\":\"\xC3\xA9\"}\r\n ";
	struct json_t *json;
	size_t length;
	const char *text;
	assert_int_equal(http_parse(&json, body, sizeof(body) - 1, detail), RESULT_OK);
	text = http_string(json, "a", &length);
	assert_non_null(text);
	assert_int_equal(length, 0);
	text = http_string(json, "b", &length);
	assert_int_equal(length, 3);
	assert_memory_equal(text,
			    "1\1"
			    "2",
			    3);
	text = http_string(json, "c", &length);
	assert_int_equal(length, 6);
	assert_memory_equal(text, "\xC3\xA9\xF0\x9F\x98\x80", 6);
	text = http_string(json, "d", &length);
	assert_int_equal(length, 2);
	assert_null(http_string(json, "e", &length));
	http_json_free(json);
}

static void a_refusal_says_what_and_where(void **state)
{
	static const struct {
		const char *body, *expected;
	} cases[] = {
	    {"{\"a\":1,\n\"a\":2}", "The body: a name stands twice in an object, at line 2, column 3."},
	    {"{\"unread\":1e999}", "The body: a number is too large, at line 1, column 15."},
	    {"{\"a\":\"\\u0000\"}", "The body: a string holds the character U+0000, at line 1, column 13."},
	    {"{\"a\":\"\xFF\"}", "The body: a string is not UTF-8, at line 1, column 6."},
	    {"{\"a\":\"SECRET", "The body: it ends too early, at line 1, column 12."},
	    {"{\"a\":\"\\ud83d\"}", "The body: it is not valid JSON, at line 1, column 13."},
	    {"{\"a\":SECRET}", "The body: it is not valid JSON, at line 1, column 11."},
	    {"{} {}", "The body: something follows the object, at line 1, column 4."},
	    {"[1]", "The body must be a JSON object."},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct json_t *json;

		assert_int_equal(http_parse(&json, cases[i].body, strlen(cases[i].body), detail), RESULT_INVALID);
		assert_string_equal(detail, cases[i].expected);
	}
}

static void members_that_nobody_reads_are_taken(void **state)
{
	static const char *const bodies[] = {
	    "{\"email\":\"a@b.c\",\"id\":12345678901234567890123}",
	    "{\"email\":\"a@b.c\",\"id\":-99999999999999999999,\"x\":[1e308,{\"y\":null}]}",
	    "\xEF\xBB\xBF{\"email\":\"a@b.c\"}",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bodies); i++) {
		struct json_t *json;
		size_t length = 0;

		assert_int_equal(http_parse(&json, bodies[i], strlen(bodies[i]), detail), RESULT_OK);
		assert_string_equal(http_string(json, "email", &length), "a@b.c");
		http_json_free(json);
	}
}

static void no_string_holds_a_nul(void **state)
{
	(void)state;
	static const char *const bodies[] = {"{\"email\":\"a@b.c\\u0000.d\"}", "{\"\\u0000\":1}",
					     "{\"unread\":[\"\\u0000\"],\"email\":\"a@b.c\"}"};
	for (size_t i = 0; i < COUNT(bodies); i++) {
		struct json_t *json;
		assert_int_equal(http_parse(&json, bodies[i], strlen(bodies[i]), detail), RESULT_INVALID);
	}
}

static void the_body_needs_no_end_mark(void **state)
{
	(void)state;
	/* Exactly as long as its bytes: a sanitizer sees any step beyond. */
	static const char body[] = "{\"email\":\"a@b.c\"}";
	for (size_t length = 0; length < sizeof(body); length++) {
		struct json_t *json;
		char *copy = test_malloc(length + (length == 0));
		memcpy(copy, body, length);
		enum result result = http_parse(&json, copy, length, detail);
		assert_int_equal(result, length == sizeof(body) - 1 ? RESULT_OK : RESULT_INVALID);
		if (result == RESULT_OK)
			http_json_free(json);
		test_free(copy);
	}
}

static unsigned draw(unsigned bound)
{
	static uint32_t seed = 99;
	seed ^= seed << 13;
	seed ^= seed >> 17;
	seed ^= seed << 5;
	return seed % bound;
}

static void a8_mutated_bodies_are_refused_or_objects(void **state)
{
	(void)state;
	static const char *const seeds[] = {"{\"password\":\"123456\",\"token\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYX\"}",
					    "{\"email\":\"user@b\\u00fccher.de\",\"locale\":\"pt-BR\"}",
					    "{\"a\":[1,2.5e3,null,true,{\"b\":\"\\ud83d\\ude00\"}]}"};
	static const char bytes[] = "{}[]\",:\\u0/'\0\x01\xC3\xFF \n";
	unsigned parsed = 0;
	for (int round = 0; round < 200000; round++) {
		char body[128];
		const char *seed = seeds[draw(COUNT(seeds))];
		size_t length = strlen(seed);
		struct json_t *json;
		memcpy(body, seed, length);
		for (unsigned times = 1 + draw(4); times > 0; times--)
			body[draw((unsigned)length)] = draw(2) != 0 ? bytes[draw(sizeof(bytes) - 1)] : (char)draw(256);
		if (http_parse(&json, body, length, detail) != RESULT_OK)
			continue;
		size_t text_length;
		const char *text = http_string(json, "password", &text_length);
		assert_true(text == NULL || text_length < length);
		http_json_free(json);
		parsed++;
	}
	assert_true(parsed > 1000 && parsed < 199000);
}

static int start(void **state)
{
	(void)state;
	http_start();
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
	    cmocka_unit_test(a8_what_is_no_object_is_refused),
	    cmocka_unit_test(a8_only_strings_count),
	    cmocka_unit_test(strings_are_read_with_their_length),
	    cmocka_unit_test(a_refusal_says_what_and_where),
	    cmocka_unit_test(members_that_nobody_reads_are_taken),
	    cmocka_unit_test(no_string_holds_a_nul),
	    cmocka_unit_test(the_body_needs_no_end_mark),
	    cmocka_unit_test(a8_mutated_bodies_are_refused_or_objects),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, start, NULL);
}
