/* test_token.c: tokens have 32 bytes, one spelling, and ids that give nothing away (A2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/process.h"
#include "otp/token.h"

static size_t asked_for; /* bytes drawn by fixed_random */

static void fixed_random(void *bytes, size_t count)
{
	asked_for += count;
	memset(bytes, 0xC3, count);
}

static void a_token_is_its_time_and_26_random_bytes(void **state)
{
	(void)state;
	unsigned char token[TOKEN_BYTES];
	asked_for = 0;
	token_make(token, 0x0123456789ABULL, fixed_random);
	assert_int_equal(asked_for, 26);
	assert_memory_equal(token, "\x01\x23\x45\x67\x89\xAB", 6);
	for (size_t i = 6; i < TOKEN_BYTES; i++)
		assert_int_equal(token[i], 0xC3);
}

static void golden_text_and_id(void **state)
{
	(void)state;
	/* Made with Python: base64.urlsafe_b64encode and hashlib.blake2b(token, digest_size=32). */
	static const struct {
		unsigned char first, step;
		const char *text, *id;
	} cases[] = {
	    {0x00, 1, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", "00010203-0405-cb2f-5160-fc1f7e05a55e"},
	    {0xFF, 0, "__________________________________________8", "ffffffff-ffff-e202-1160-500f01190b8b"},
	};
	for (size_t i = 0; i < 2; i++) {
		unsigned char token[TOKEN_BYTES], read[TOKEN_BYTES], id[TOKEN_ID_BYTES];
		char text[TOKEN_TEXT + 1], id_text[TOKEN_ID_TEXT + 1];
		for (size_t j = 0; j < TOKEN_BYTES; j++)
			token[j] = (unsigned char)(cases[i].first + j * cases[i].step);
		token_write(token, text);
		assert_string_equal(text, cases[i].text);
		assert_int_equal(token_read(read, text, TOKEN_TEXT), RESULT_OK);
		assert_memory_equal(read, token, TOKEN_BYTES);
		token_id(token, id);
		token_id_write(id, id_text);
		assert_string_equal(id_text, cases[i].id);
	}
}

static void random_tokens_round_trip(void **state)
{
	(void)state;
	for (int i = 0; i < 10000; i++) {
		unsigned char token[TOKEN_BYTES], read[TOKEN_BYTES];
		char text[TOKEN_TEXT + 1];
		process_random(token, sizeof(token));
		token_write(token, text);
		assert_int_equal(strlen(text), TOKEN_TEXT);
		assert_int_equal(token_read(read, text, TOKEN_TEXT), RESULT_OK);
		assert_memory_equal(read, token, TOKEN_BYTES);
	}
}

static int is_base64url(int byte)
{
	return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
	       byte == '-' || byte == '_';
}

static void every_other_byte_is_refused_in_every_place(void **state)
{
	(void)state;
	static const char good[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
	for (size_t place = 0; place < TOKEN_TEXT; place++) {
		for (int byte = 0; byte < 256; byte++) {
			unsigned char token[TOKEN_BYTES];
			char text[TOKEN_TEXT + 1];
			memcpy(text, good, sizeof(text));
			text[place] = (char)byte;
			/* 43 characters are 258 bits: the last one may only leave two zero bits over. */
			enum result expected = is_base64url(byte) ? RESULT_OK : RESULT_INVALID;
			if (place == TOKEN_TEXT - 1 && expected == RESULT_OK &&
			    strchr("AEIMQUYcgkosw048", byte) == NULL)
				expected = RESULT_INVALID;
			assert_int_equal(token_read(token, text, TOKEN_TEXT), expected);
		}
	}
}

static void other_lengths_and_paddings_are_refused(void **state)
{
	(void)state;
	static const char text[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=AAAAAAAAAAAAAAAAAAAAAAA";
	unsigned char token[TOKEN_BYTES], before[TOKEN_BYTES];
	memset(token, 0x77, sizeof(token));
	memcpy(before, token, sizeof(token));
	for (size_t length = 0; length < sizeof(text); length++)
		if (length != TOKEN_TEXT)
			assert_int_equal(token_read(token, text, length), RESULT_INVALID);
	assert_int_equal(token_read(token, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg=", TOKEN_TEXT), RESULT_INVALID);
	assert_int_equal(token_read(token, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdH==", TOKEN_TEXT), RESULT_INVALID);
	assert_int_equal(token_read(token, " AECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8", TOKEN_TEXT), RESULT_INVALID);
	assert_int_equal(token_read(token, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n", TOKEN_TEXT + 1),
			 RESULT_INVALID);
	assert_memory_equal(token, before, sizeof(token));
}

static int compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, TOKEN_ID_BYTES);
}

static void a2_tokens_and_ids_never_repeat(void **state)
{
	(void)state;
	enum { COUNT = 200000 };
	unsigned char(*ids)[TOKEN_ID_BYTES] = malloc(sizeof(*ids) * COUNT);
	assert_non_null(ids);
	for (size_t i = 0; i < COUNT; i++) {
		unsigned char token[TOKEN_BYTES];
		token_make(token, 1700000000000ULL, process_random); /* all in one millisecond */
		token_id(token, ids[i]);
	}
	qsort(ids, COUNT, sizeof(*ids), compare_ids);
	for (size_t i = 1; i < COUNT; i++)
		assert_memory_not_equal(ids[i - 1], ids[i], sizeof(*ids));
	free(ids);
}

static void a2_an_id_holds_the_time_but_no_other_byte_of_its_token(void **state)
{
	(void)state;
	unsigned char token[TOKEN_BYTES], id[TOKEN_ID_BYTES], other[TOKEN_ID_BYTES];
	token_make(token, 1700000000000ULL, process_random);
	token_id(token, id);
	assert_memory_equal(id, token, 6);
	for (size_t at = 6; at + 4 <= TOKEN_ID_BYTES; at++)
		for (size_t from = 6; from + 4 <= TOKEN_BYTES; from++)
			assert_memory_not_equal(id + at, token + from, 4);
	for (size_t bit = 48; bit < TOKEN_BYTES * 8; bit++) {
		token[bit / 8] ^= (unsigned char)(1U << bit % 8);
		token_id(token, other);
		assert_memory_not_equal(other, id, TOKEN_ID_BYTES);
		token[bit / 8] ^= (unsigned char)(1U << bit % 8);
	}
}

static void ids_are_ordered_by_time(void **state)
{
	(void)state;
	unsigned char token[TOKEN_BYTES], earlier[TOKEN_ID_BYTES], later[TOKEN_ID_BYTES];
	static const uint64_t times[] = {0, 255, 256, 65535, 1700000000000ULL, 1700000000001ULL, 0xFFFFFFFFFFFFULL};
	for (size_t i = 1; i < sizeof(times) / sizeof(times[0]); i++) {
		token_make(token, times[i - 1], process_random);
		token_id(token, earlier);
		token_make(token, times[i], process_random);
		token_id(token, later);
		assert_true(memcmp(earlier, later, TOKEN_ID_BYTES) < 0);
	}
}

static int start(void **state)
{
	(void)state;
	return (int)process_start();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_token_is_its_time_and_26_random_bytes),
	    cmocka_unit_test(golden_text_and_id),
	    cmocka_unit_test(random_tokens_round_trip),
	    cmocka_unit_test(every_other_byte_is_refused_in_every_place),
	    cmocka_unit_test(other_lengths_and_paddings_are_refused),
	    cmocka_unit_test(a2_tokens_and_ids_never_repeat),
	    cmocka_unit_test(a2_an_id_holds_the_time_but_no_other_byte_of_its_token),
	    cmocka_unit_test(ids_are_ordered_by_time),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, start, NULL);
}
