/* test_jsondoc.c: strict JSON (A8): what is no object is refused with its place, and nothing but a string is one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/jsondoc.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static char reason[JSONDOC_REASON_BYTES];

static void assert_no_object(const char *body, size_t length)
{
	static char nothing;
	struct json_t *const before = (struct json_t *)(void *)&nothing;
	struct json_t *json = before;
	if (jsondoc_parse(&json, body, length, reason) != RESULT_INVALID)
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
		assert_int_equal(jsondoc_parse(&json, others[i], strlen(others[i]), reason), RESULT_OK);
		assert_null(jsondoc_text(json, "password", &length));
		assert_int_equal(length, 77);
		jsondoc_free(json);
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
	assert_int_equal(jsondoc_parse(&json, body, sizeof(body) - 1, reason), RESULT_OK);
	text = jsondoc_text(json, "a", &length);
	assert_non_null(text);
	assert_int_equal(length, 0);
	text = jsondoc_text(json, "b", &length);
	assert_int_equal(length, 3);
	assert_memory_equal(text,
			    "1\1"
			    "2",
			    3);
	text = jsondoc_text(json, "c", &length);
	assert_int_equal(length, 6);
	assert_memory_equal(text, "\xC3\xA9\xF0\x9F\x98\x80", 6);
	text = jsondoc_text(json, "d", &length);
	assert_int_equal(length, 2);
	assert_null(jsondoc_text(json, "e", &length));
	jsondoc_free(json);
}

static void a_refusal_says_what_and_where(void **state)
{
	static const struct {
		const char *body, *expected;
	} cases[] = {
	    {"{\"a\":1,\n\"a\":2}", "a name stands twice in an object, at line 2, column 3"},
	    {"{\"unread\":1e999}", "a number is too large, at line 1, column 15"},
	    {"{\"a\":\"\\u0000\"}", "a string holds the character U+0000, at line 1, column 13"},
	    {"{\"a\":\"\xFF\"}", "a string is not UTF-8, at line 1, column 6"},
	    {"{\"a\":\"SECRET", "it ends too early, at line 1, column 12"},
	    {"{\"a\":\"\\ud83d\"}", "it is not valid JSON, at line 1, column 13"},
	    {"{\"a\":SECRET}", "it is not valid JSON, at line 1, column 11"},
	    {"{} {}", "something follows the object, at line 1, column 4"},
	    {"[1]", "it must be a JSON object"},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct json_t *json;

		assert_int_equal(jsondoc_parse(&json, cases[i].body, strlen(cases[i].body), reason), RESULT_INVALID);
		assert_string_equal(reason, cases[i].expected);
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

		assert_int_equal(jsondoc_parse(&json, bodies[i], strlen(bodies[i]), reason), RESULT_OK);
		assert_string_equal(jsondoc_text(json, "email", &length), "a@b.c");
		jsondoc_free(json);
	}
}

static void no_string_holds_a_nul(void **state)
{
	(void)state;
	static const char *const bodies[] = {"{\"email\":\"a@b.c\\u0000.d\"}", "{\"\\u0000\":1}",
					     "{\"unread\":[\"\\u0000\"],\"email\":\"a@b.c\"}"};
	for (size_t i = 0; i < COUNT(bodies); i++) {
		struct json_t *json;
		assert_int_equal(jsondoc_parse(&json, bodies[i], strlen(bodies[i]), reason), RESULT_INVALID);
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
		enum result result = jsondoc_parse(&json, copy, length, reason);
		assert_int_equal(result, length == sizeof(body) - 1 ? RESULT_OK : RESULT_INVALID);
		if (result == RESULT_OK)
			jsondoc_free(json);
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
		if (jsondoc_parse(&json, body, length, reason) != RESULT_OK)
			continue;
		size_t text_length;
		const char *text = jsondoc_text(json, "password", &text_length);
		assert_true(text == NULL || text_length < length);
		jsondoc_free(json);
		parsed++;
	}
	assert_true(parsed > 1000 && parsed < 199000);
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
