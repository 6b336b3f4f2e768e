/* test_api_key.c: keys of 256 bits in one spelling, known by their hashes alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/process.h"
#include "otp/api_key.h"

#define GOLDEN "otp_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
/* Made with Python: hashlib.blake2b(GOLDEN, digest_size=32). */
#define GOLDEN_HASH "52c0dffbb98fab59cdf6107394c91b88e036c4a7e76b4019b4d7d2f683bbb3fc"

static size_t asked_for;

static void counting(void *bytes, size_t count)
{
	asked_for += count;
	for (size_t i = 0; i < count; i++)
		((unsigned char *)bytes)[i] = (unsigned char)i;
}

static void a20_a_key_has_256_random_bits_and_one_hash(void **state)
{
	char key[API_KEY_TEXT + 1], text[API_KEY_HASH_TEXT + 1];
	unsigned char hash[API_KEY_HASH_BYTES], read[API_KEY_HASH_BYTES];

	(void)state;
	api_key_make(key, counting);
	assert_int_equal(asked_for, 32);
	assert_string_equal(key, GOLDEN);
	assert_int_equal(api_key_hash(hash, key, API_KEY_TEXT), RESULT_OK);
	api_key_hash_write(hash, text);
	assert_string_equal(text, GOLDEN_HASH);
	assert_int_equal(api_key_hash_read(read, text, API_KEY_HASH_TEXT), RESULT_OK);
	assert_true(api_key_is_same(read, hash));
	for (size_t bit = 0; bit < API_KEY_HASH_BYTES * 8; bit++) {
		read[bit / 8] ^= (unsigned char)(1U << bit % 8);
		assert_false(api_key_is_same(read, hash));
		read[bit / 8] ^= (unsigned char)(1U << bit % 8);
	}
}

static void a20_keys_differ(void **state)
{
	enum { COUNT = 200 };
	static char keys[COUNT][API_KEY_TEXT + 1];

	(void)state;
	for (size_t i = 0; i < COUNT; i++) {
		api_key_make(keys[i], process_random);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(keys[i], keys[j]);
	}
}

static bool is_key_digit(int byte)
{
	return byte != 0 && strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", byte) != NULL;
}

static void a20_what_is_no_key_is_refused(void **state)
{
	unsigned char hash[API_KEY_HASH_BYTES] = {7};
	unsigned char before[API_KEY_HASH_BYTES] = {7};
	char text[API_KEY_TEXT + 8];

	(void)state;
	for (size_t length = 0; length < sizeof(text); length++) {
		memset(text, 'A', sizeof(text));
		memcpy(text, "otp_", 4);
		if (length != API_KEY_TEXT)
			assert_int_equal(api_key_hash(hash, text, length), RESULT_INVALID);
	}
	for (size_t place = 0; place < API_KEY_TEXT; place++) {
		for (int byte = 0; byte < 256; byte++) {
			bool is_right = place < 4 ? byte == GOLDEN[place] : is_key_digit(byte);

			memcpy(text, GOLDEN, sizeof(GOLDEN));
			text[place] = (char)byte;
			if (place == API_KEY_TEXT - 1) /* four of its six bits */
				is_right = is_right && strchr("AEIMQUYcgkosw048", byte) != NULL;
			if (!is_right) {
				assert_int_equal(api_key_hash(hash, text, API_KEY_TEXT), RESULT_INVALID);
				assert_memory_equal(hash, before, sizeof(hash));
			} else {
				unsigned char other[API_KEY_HASH_BYTES];

				assert_int_equal(api_key_hash(other, text, API_KEY_TEXT), RESULT_OK);
			}
		}
	}
}

static void hashes_are_64_small_hexadecimal_digits(void **state)
{
	unsigned char hash[API_KEY_HASH_BYTES];
	char text[API_KEY_HASH_TEXT + 4];

	(void)state;
	for (size_t place = 0; place < API_KEY_HASH_TEXT; place++) {
		for (int byte = 0; byte < 256; byte++) {
			bool is_digit = byte != 0 && strchr("0123456789abcdef", byte) != NULL;

			memcpy(text, GOLDEN_HASH, sizeof(GOLDEN_HASH));
			text[place] = (char)byte;
			assert_int_equal(api_key_hash_read(hash, text, API_KEY_HASH_TEXT),
					 is_digit ? RESULT_OK : RESULT_INVALID);
		}
	}
	memset(text, '0', sizeof(text));
	for (size_t length = 0; length < sizeof(text); length++)
		assert_int_equal(api_key_hash_read(hash, text, length),
				 length == API_KEY_HASH_TEXT ? RESULT_OK : RESULT_INVALID);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a20_a_key_has_256_random_bits_and_one_hash),
	    cmocka_unit_test(a20_keys_differ),
	    cmocka_unit_test(a20_what_is_no_key_is_refused),
	    cmocka_unit_test(hashes_are_64_small_hexadecimal_digits),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
