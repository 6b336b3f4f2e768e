/* test_seal.c: a sealed code opens with the worker's key, in its own row, unchanged, and not otherwise (B1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <string.h>

#include "base/process.h"
#include "otp/seal.h"

static unsigned char private_key[32], public_key[32];
static unsigned char id[TOKEN_ID_BYTES];
static struct sealer sealer;

static int make_keys(void **state)
{
	(void)state;
	process_random(private_key, sizeof(private_key));
	process_random(id, sizeof(id));
	int failed = crypto_scalarmult_base(public_key, private_key);
	sealer_init(&sealer, public_key);
	return failed;
}

static void every_code_comes_back(void **state)
{
	(void)state;
	for (size_t length = CODE_MIN; length <= CODE_MAX; length++) {
		for (int i = 0; i < 50; i++) {
			unsigned char sealed[SEAL_BYTES];
			char code[CODE_MAX + 1], opened[CODE_MAX + 1];
			code_make(code, length, process_uniform);
			process_random(id, sizeof(id));
			assert_int_equal(seal_code(&sealer, sealed, id, code, (uint64_t)i), RESULT_OK);
			assert_int_equal(seal_open(opened, sealed, sizeof(sealed), id, private_key), RESULT_OK);
			assert_string_equal(opened, code);
		}
	}
}

/* More senders than an opener keeps, coming and going; a wrong one in between spoils nothing. */
static void an_opener_serves_many_senders(void **state)
{
	(void)state;
	struct sealer senders[SEAL_SENDERS + 2];
	struct seal_opener opener;
	unsigned char sealed[SEAL_BYTES], zeros[SEAL_BYTES] = {0};
	char code[CODE_MAX + 1], opened[CODE_MAX + 1];
	seal_opener_init(&opener, private_key);
	for (size_t i = 0; i < SEAL_SENDERS + 2; i++)
		sealer_init(&senders[i], public_key);
	for (int i = 0; i < 500; i++) {
		struct sealer *sender = &senders[process_uniform(i < 250 ? SEAL_SENDERS : SEAL_SENDERS + 2)];
		code_make(code, CODE_MAX, process_uniform);
		process_random(id, sizeof(id));
		assert_int_equal(seal_code(sender, sealed, id, code, (uint64_t)i * 1000), RESULT_OK);
		assert_int_equal(seal_opener_open(&opener, opened, zeros, sizeof(zeros), id), RESULT_INVALID);
		assert_int_equal(seal_opener_open(&opener, opened, sealed, sizeof(sealed) - 1, id), RESULT_INVALID);
		assert_int_equal(seal_opener_open(&opener, opened, sealed, sizeof(sealed), id), RESULT_OK);
		assert_string_equal(opened, code);
		sealed[i % (int)SEAL_BYTES] ^= 1;
		assert_int_equal(seal_opener_open(&opener, opened, sealed, sizeof(sealed), id), RESULT_INVALID);
	}
	seal_opener_wipe(&opener);
}

static void a_golden_seal_opens(void **state)
{
	(void)state;
	/* crypto_box_easy of "012345" and zeros, private keys 00..1f (recipient) and 40..5f (sender). */
	static const char hex[] = "79a631eede1bf9c98f12032cdeadd0e7a079398fc786b88cc846ec89af85a51a"
				  "fa5309dd6bd4b1de207cad4075a4cef0317a172751e1b5bc1421008923de0e61";
	unsigned char sealed[SEAL_BYTES], key[32];
	char code[CODE_MAX + 1];
	assert_int_equal(sodium_hex2bin(sealed, sizeof(sealed), hex, sizeof(hex) - 1, NULL, NULL, NULL), 0);
	for (unsigned char i = 0; i < 32; i++)
		key[i] = i;
	for (unsigned char i = 0; i < TOKEN_ID_BYTES; i++)
		id[i] = (unsigned char)(0xA0 + i);
	assert_int_equal(seal_open(code, sealed, sizeof(sealed), id, key), RESULT_OK);
	assert_string_equal(code, "012345");
}

static void any_change_is_noticed(void **state)
{
	(void)state;
	unsigned char sealed[SEAL_BYTES];
	char code[CODE_MAX + 1] = "before";
	assert_int_equal(seal_code(&sealer, sealed, id, "123456", 0), RESULT_OK);
	for (size_t bit = 0; bit < SEAL_BYTES * 8; bit++) {
		if (bit == 255)
			continue; /* X25519 ignores the top bit of a public key (RFC 7748) */
		sealed[bit / 8] ^= (unsigned char)(1U << bit % 8);
		assert_int_equal(seal_open(code, sealed, sizeof(sealed), id, private_key), RESULT_INVALID);
		sealed[bit / 8] ^= (unsigned char)(1U << bit % 8);
	}
	for (size_t bit = 0; bit < TOKEN_ID_BYTES * 8; bit++) {
		id[bit / 8] ^= (unsigned char)(1U << bit % 8);
		assert_int_equal(seal_open(code, sealed, sizeof(sealed), id, private_key), RESULT_INVALID);
		id[bit / 8] ^= (unsigned char)(1U << bit % 8);
	}
	for (size_t length = 0; length < SEAL_BYTES; length++)
		assert_int_equal(seal_open(code, sealed, length, id, private_key), RESULT_INVALID);
	assert_int_equal(seal_open(code, NULL, SEAL_BYTES, id, private_key), RESULT_INVALID);
	assert_string_equal(code, "before");
	assert_int_equal(seal_open(code, sealed, sizeof(sealed), id, private_key), RESULT_OK);
}

static void a_longer_seal_is_refused_even_if_well_made(void **state)
{
	(void)state;
	static const unsigned char plain[20] = "123456";
	for (size_t length = 0; length <= sizeof(plain); length++) {
		unsigned char sealed[SEAL_BYTES + 4], nonce[crypto_box_NONCEBYTES] = {0}, sender[32];
		char code[CODE_MAX + 1];
		memcpy(nonce, id, sizeof(id));
		assert_int_equal(crypto_box_keypair(sealed, sender), 0);
		assert_int_equal(crypto_box_easy(sealed + 32, plain, length, nonce, public_key, sender), 0);
		assert_int_equal(seal_open(code, sealed, 48 + length, id, private_key),
				 length == 16 ? RESULT_OK : RESULT_INVALID);
	}
}

static void another_key_opens_nothing(void **state)
{
	(void)state;
	unsigned char sealed[SEAL_BYTES], other[32];
	char code[CODE_MAX + 1];
	assert_int_equal(seal_code(&sealer, sealed, id, "123456", 0), RESULT_OK);
	process_random(other, sizeof(other));
	assert_int_equal(seal_open(code, sealed, sizeof(sealed), id, other), RESULT_INVALID);
	assert_int_equal(seal_open(code, sealed, sizeof(sealed), id, sealer.shared), RESULT_INVALID);
	assert_int_equal(seal_open(code, sealed, sizeof(sealed), id, public_key), RESULT_INVALID);
}

static void what_is_no_code_is_refused_even_if_well_sealed(void **state)
{
	(void)state;
	static const char padded[][16] = {"12345a", "123", "1234567890123", "123456789012345", "123456\0 1",
					  "-12345", ""};
	for (size_t i = 0; i < sizeof(padded) / sizeof(padded[0]); i++) {
		unsigned char sealed[SEAL_BYTES], nonce[crypto_box_NONCEBYTES] = {0}, sender[32];
		char code[CODE_MAX + 1];
		memcpy(nonce, id, sizeof(id));
		assert_int_equal(crypto_box_keypair(sealed, sender), 0);
		assert_int_equal(
		    crypto_box_easy(sealed + 32, (const unsigned char *)padded[i], 16, nonce, public_key, sender), 0);
		assert_int_equal(seal_open(code, sealed, sizeof(sealed), id, private_key), RESULT_INVALID);
	}
}

static void the_sender_is_renewed_every_minute(void **state)
{
	(void)state;
	unsigned char first[SEAL_BYTES], second[SEAL_BYTES], third[SEAL_BYTES];
	char code[CODE_MAX + 1];
	unsigned char other_id[TOKEN_ID_BYTES] = {9};
	assert_int_equal(seal_code(&sealer, first, id, "123456", 1000), RESULT_OK);
	assert_int_equal(seal_code(&sealer, second, other_id, "123456", 60999), RESULT_OK);
	assert_memory_equal(first, second, 32);
	assert_memory_not_equal(first + 32, second + 32, 32);
	assert_int_equal(seal_code(&sealer, third, other_id, "123456", 61000), RESULT_OK);
	assert_memory_not_equal(first, third, 32);
	assert_int_equal(seal_open(code, first, sizeof(first), id, private_key), RESULT_OK);
	assert_int_equal(seal_open(code, second, sizeof(second), other_id, private_key), RESULT_OK);
	assert_int_equal(seal_open(code, third, sizeof(third), other_id, private_key), RESULT_OK);
}

static void a_wrong_recipient_or_code_is_a_fault(void **state)
{
	(void)state;
	unsigned char sealed[SEAL_BYTES], before[SEAL_BYTES];
	static const unsigned char no_point[32]; /* of order 1: its shared key would be known to all */
	memset(sealed, 0x11, sizeof(sealed));
	memcpy(before, sealed, sizeof(sealed));
	assert_int_equal(seal_code(&sealer, sealed, id, "1234567890123", 0), RESULT_FAULT);
	sealer_init(&sealer, no_point);
	assert_int_equal(seal_code(&sealer, sealed, id, "123456", 0), RESULT_FAULT);
	assert_int_equal(seal_code(&sealer, sealed, id, "123456", 1), RESULT_FAULT);
	assert_memory_equal(sealed, before, sizeof(sealed));
}

static void wiping_leaves_nothing(void **state)
{
	(void)state;
	unsigned char sealed[SEAL_BYTES];
	static const struct sealer wiped;
	assert_int_equal(seal_code(&sealer, sealed, id, "123456", 0), RESULT_OK);
	sealer_wipe(&sealer);
	assert_memory_equal(&sealer, &wiped, sizeof(sealer));
}

static int start(void **state)
{
	(void)state;
	return (int)process_start();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(every_code_comes_back, make_keys),
	    cmocka_unit_test_setup(a_golden_seal_opens, make_keys),
	    cmocka_unit_test_setup(an_opener_serves_many_senders, make_keys),
	    cmocka_unit_test_setup(any_change_is_noticed, make_keys),
	    cmocka_unit_test_setup(a_longer_seal_is_refused_even_if_well_made, make_keys),
	    cmocka_unit_test_setup(another_key_opens_nothing, make_keys),
	    cmocka_unit_test_setup(what_is_no_code_is_refused_even_if_well_sealed, make_keys),
	    cmocka_unit_test_setup(the_sender_is_renewed_every_minute, make_keys),
	    cmocka_unit_test_setup(a_wrong_recipient_or_code_is_a_fault, make_keys),
	    cmocka_unit_test_setup(wiping_leaves_nothing, make_keys),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, start, NULL);
}
