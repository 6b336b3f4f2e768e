/* test_code.c: codes are uniform (A1), read as people paste them (A8), and hashed together with their token (A7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/process.h"
#include "otp/code.h"

#define CODES 1000000U

static unsigned next_digit; /* of counting */
static unsigned last_bound;

static unsigned counting(unsigned bound)
{
	last_bound = bound;
	return next_digit++ % bound;
}

static void a1_a_code_is_a_padded_string_of_its_length(void **state)
{
	(void)state;
	for (size_t length = CODE_MIN; length <= CODE_MAX; length++) {
		char code[CODE_MAX + 1];
		memset(code, 'x', sizeof(code));
		next_digit = 0;
		code_make(code, length, counting);
		assert_int_equal(last_bound, 10);
		assert_int_equal(next_digit, length); /* one draw for each digit */
		assert_int_equal(strlen(code), length);
		assert_memory_equal(code, "012345678901", length);
	}
}

static double chi_square(const unsigned *counts, size_t bins)
{
	double expected = (double)CODES / (double)bins, sum = 0;
	for (size_t i = 0; i < bins; i++)
		sum += ((double)counts[i] - expected) * ((double)counts[i] - expected) / expected;
	return sum;
}

/* Both tails: a generator that is too even is no random one. The bounds are those of a one-in-a-billion run. */
static void a1_a_million_codes_are_uniform(void **state)
{
	(void)state;
	static unsigned digits[6][10], head[1000], tail[1000], repeats[2];
	char code[CODE_MAX + 1], last[CODE_MAX + 1] = "";
	for (unsigned i = 0; i < CODES; i++) {
		code_make(code, 6, process_uniform);
		unsigned number = 0;
		for (size_t j = 0; j < 6; j++) {
			digits[j][code[j] - '0']++;
			number = number * 10 + (unsigned)(code[j] - '0');
		}
		head[number / 1000]++;
		tail[number % 1000]++;
		repeats[strcmp(code, last) == 0]++;
		memcpy(last, code, sizeof(last));
	}
	for (size_t j = 0; j < 6; j++)
		assert_true(chi_square(digits[j], 10) < 62.0);
	assert_true(chi_square(head, 1000) > 750.0 && chi_square(head, 1000) < 1300.0);
	assert_true(chi_square(tail, 1000) > 750.0 && chi_square(tail, 1000) < 1300.0);
	assert_true(repeats[1] < 12); /* 1 expected */
}

static void assert_read(const char *text, size_t length, const char *expected)
{
	char code[CODE_MAX + 1] = "before";
	if (expected == NULL) {
		if (code_read(code, text, length) != RESULT_INVALID)
			fail_msg("accepted: %.*s", (int)length, text);
		assert_string_equal(code, "before");
	} else {
		if (code_read(code, text, length) != RESULT_OK)
			fail_msg("refused: %.*s", (int)length, text);
		assert_string_equal(code, expected);
	}
}

#define READ(text, expected) assert_read((text), sizeof(text) - 1, (expected))

static void pasted_codes_are_read(void **state)
{
	(void)state;
	READ("123456", "123456");
	READ("000123", "000123");
	READ("1234", "1234");
	READ("123456789012", "123456789012");
	READ("  123 456\t", "123456");
	READ("123-456\r\n", "123456");
	READ("1-2-3-4-5-6", "123456");
	READ("123\xC2\xA0"
	     "456",
	     "123456"); /* no-break space */
	READ("123\xE2\x80\x80"
	     "456",
	     "123456"); /* U+2000 */
	READ("123\xE2\x80\x87"
	     "456",
	     "123456"); /* figure space */
	READ("123\xE2\x80\x8B"
	     "456",
	     "123456"); /* zero-width space */
	READ("123\xE2\x80\x90"
	     "456",
	     "123456"); /* hyphen */
	READ("123\xE2\x80\x93"
	     "456",
	     "123456"); /* en dash */
	READ("123\xE2\x80\x95"
	     "456",
	     "123456"); /* U+2015 */
	READ("123\xE2\x80\xAF"
	     "456",
	     "123456"); /* narrow no-break space */
	READ("\xE2\x88\x92"
	     "123456",
	     "123456"); /* minus sign */
}

static void a26_invisible_marks_count_for_nothing(void **state)
{
	static const char *const marks[] = {
	    "\xE2\x80\xAA", "\xE2\x80\xAB", "\xE2\x80\xAC", "\xE2\x80\xAD", "\xE2\x80\xAE", /* U+202A to U+202E */
	    "\xE2\x81\xA6", "\xE2\x81\xA7", "\xE2\x81\xA8", "\xE2\x81\xA9",                 /* U+2066 to U+2069 */
	    "\xE2\x81\xA0", "\xEF\xBB\xBF", "\xE3\x80\x80", "\xD8\x9C", /* U+2060 U+FEFF U+3000 U+061C */
	    "\xEF\xBC\x8D", "\x0C",         "\x0B",         "\xC2\xAD", /* U+FF0D, form feed, U+00AD */
	    "\xC2\x85",     "\xE2\x80\xA8", "\xE1\x9A\x80", "\x1B",     /* U+0085 U+2028 U+1680 */
	};

	(void)state;
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		char text[64];

		for (size_t place = 0; place <= 6; place++) {
			int length =
			    snprintf(text, sizeof(text), "%.*s%s%s", (int)place, "123456", marks[i], &"123456"[place]);

			assert_read(text, (size_t)length, "123456");
		}
		assert_read(text, (size_t)snprintf(text, sizeof(text), "%s%s", marks[i], marks[i]), NULL);
	}
}

static void a26_digits_of_any_script_count(void **state)
{
	(void)state;
	READ("\xD9\xA1\xD9\xA2\xD9\xA3\xD9\xA4\xD9\xA5\xD9\xA6", "123456");                         /* Arabic-Indic */
	READ("\xDB\xB0\xDB\xB1\xDB\xB2\xDB\xB3", "0123");                                           /* Persian */
	READ("\xE0\xA5\xA6\xE0\xA5\xA7\xE0\xA5\xA8\xE0\xA5\xAF", "0129");                           /* Devanagari */
	READ("\xEF\xBC\x91\xEF\xBC\x92\xEF\xBC\x93\xEF\xBC\x94\xEF\xBC\x95\xEF\xBC\x96", "123456"); /* full-width */
	READ("\xF0\x9D\x9F\x8E\xF0\x9D\x9F\xBF\x33\x34", "0934");         /* mathematical, mixed with our own */
	READ("\xE0\xA7\xA7\xE0\xAF\xA8\xE0\xB9\x93\xE1\xA0\x94", "1234"); /* Bengali, Tamil, Thai, Mongolian */
}

static void a8_what_is_no_code_is_refused(void **state)
{
	(void)state;
	READ("", NULL);
	READ("   ", NULL);
	READ("--", NULL);
	READ("123", NULL);
	READ("1234567890123", NULL);
	READ("12345a", NULL);
	READ("+123456", NULL);
	READ("123456.0", NULL);
	READ("1e5555", NULL);
	READ("0x123456", NULL);
	READ("123,456", NULL);
	READ("123456\0", NULL);
	READ("\0"
	     "123456",
	     NULL);
	READ("123\0"
	     "456",
	     NULL);
	READ("\xE2\x91\xA0\xE2\x91\xA1\xE2\x91\xA2\xE2\x91\xA3", NULL); /* circled digits */
	READ("123456\xC2\xB9", NULL);                                   /* superscript one */
	READ("123456\xE2\x80\x96", NULL);                               /* U+2016, behind the dashes */
	READ("123456\xE2\x80", NULL);                                   /* cut in a character */
	READ("123456\xC2", NULL);
	READ("123456\xA0", NULL);
	READ("123456\xE2\x88\x93", NULL);
}

static void a8_no_single_byte_turns_into_a_digit(void **state)
{
	(void)state;
	for (int byte = 0; byte < 256; byte++) {
		char text[] = "12345x", code[CODE_MAX + 1];
		text[5] = (char)byte;
		enum result result = code_read(code, text, 6);
		if (byte >= '0' && byte <= '9') {
			assert_int_equal(result, RESULT_OK);
			assert_string_equal(code, text);
		} else if (byte != 0 && (byte <= ' ' || byte == '-' || byte == 0x7F)) {
			assert_int_equal(result, RESULT_OK);
			assert_string_equal(code, "12345");
		} else {
			assert_int_equal(result, RESULT_INVALID);
		}
	}
}

static const struct code_binding unbound = {NULL, NULL, NULL};

static void golden_mac(void **state)
{
	(void)state;
	/* Made with Python: hashlib.blake2b(b"otpd code 1" + token + b"000123", digest_size=32, key=pepper). */
	static const unsigned char expected[CODE_MAC_BYTES] = {
	    0x3f, 0x69, 0xfa, 0x7c, 0x65, 0x3d, 0xd9, 0xee, 0x9a, 0xd0, 0x4e, 0x8e, 0x4e, 0xcc, 0x48, 0x16,
	    0x04, 0x42, 0xc4, 0x29, 0x35, 0x64, 0x64, 0x55, 0x62, 0x70, 0x72, 0xc5, 0x51, 0x73, 0x73, 0xfb};
	unsigned char pepper[32], token[TOKEN_BYTES], mac[CODE_MAC_BYTES];
	for (unsigned char i = 0; i < 32; i++) {
		pepper[i] = (unsigned char)(100 + i);
		token[i] = i;
	}
	code_mac(mac, pepper, token, &unbound, "000123");
	assert_memory_equal(mac, expected, sizeof(mac));
}

static void a18_golden_mac_of_a_bound_code(void **state)
{
	(void)state;
	/* Python: context = blake2b(b"order 7", digest_size=32, key=token);
	   blake2b(b"otpd code 2" + token + b"shop\0sign-in\0" + context + b"000123", digest_size=32, key=pepper) */
	static const unsigned char expected[CODE_MAC_BYTES] = {
	    0x0c, 0x4a, 0x60, 0x30, 0x2e, 0x0b, 0x9b, 0xa3, 0x30, 0x44, 0x91, 0xe0, 0xb8, 0x3f, 0xa3, 0x7a,
	    0x81, 0xad, 0x51, 0x44, 0x86, 0x8c, 0x1f, 0x5c, 0xc2, 0xcd, 0x03, 0xbb, 0x19, 0x41, 0xf2, 0x67};
	unsigned char pepper[32], token[TOKEN_BYTES], mac[CODE_MAC_BYTES], context[CODE_CONTEXT_BYTES];
	const struct code_binding binding = {"shop", "sign-in", context};
	for (unsigned char i = 0; i < 32; i++) {
		pepper[i] = (unsigned char)(100 + i);
		token[i] = i;
	}
	code_context(context, token, "order 7", 7);
	code_mac(mac, pepper, token, &binding, "000123");
	assert_memory_equal(mac, expected, sizeof(mac));
}

static void a18_a_mac_depends_on_what_its_code_is_bound_to(void **state)
{
	(void)state;
	const unsigned char pepper[32] = {1}, token[TOKEN_BYTES] = {2};
	unsigned char contexts[2][CODE_CONTEXT_BYTES], macs[9][CODE_MAC_BYTES];
	code_context(contexts[0], token, "7", 1);
	code_context(contexts[1], token, "8", 1);
	const struct code_binding bindings[9] = {{NULL, NULL, NULL},
						 {"shop", NULL, NULL},
						 {NULL, "shop", NULL},
						 {"shop", "sign-in", NULL},
						 {"shopsign-in", NULL, NULL},
						 {"shops", "ign-in", NULL},
						 {"shop", "sign-in", contexts[0]},
						 {"shop", "sign-in", contexts[1]},
						 {NULL, NULL, contexts[0]}};
	for (size_t i = 0; i < 9; i++) {
		code_mac(macs[i], pepper, token, &bindings[i], "123456");
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(macs[i], macs[j], CODE_MAC_BYTES);
	}
}

static void a7_a_mac_depends_on_pepper_token_and_code(void **state)
{
	(void)state;
	unsigned char pepper[32] = {1}, token[TOKEN_BYTES] = {2}, mac[CODE_MAC_BYTES], other[CODE_MAC_BYTES];
	code_mac(mac, pepper, token, &unbound, "123456");
	for (size_t bit = 0; bit < 256; bit++) {
		pepper[bit / 8] ^= (unsigned char)(1U << bit % 8);
		code_mac(other, pepper, token, &unbound, "123456");
		assert_memory_not_equal(mac, other, sizeof(mac));
		pepper[bit / 8] ^= (unsigned char)(1U << bit % 8);
		token[bit / 8] ^= (unsigned char)(1U << bit % 8);
		code_mac(other, pepper, token, &unbound, "123456");
		assert_memory_not_equal(mac, other, sizeof(mac));
		token[bit / 8] ^= (unsigned char)(1U << bit % 8);
	}
	static const char *const codes[] = {"123457", "12345", "1234560", "0123456", "023456"};
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		code_mac(other, pepper, token, &unbound, codes[i]);
		assert_memory_not_equal(mac, other, sizeof(mac));
	}
	code_mac(other, pepper, token, &unbound, "123456");
	assert_memory_equal(mac, other, sizeof(mac));
}

static int start(void **state)
{
	(void)state;
	return (int)process_start();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a1_a_code_is_a_padded_string_of_its_length),
	    cmocka_unit_test(a1_a_million_codes_are_uniform),
	    cmocka_unit_test(pasted_codes_are_read),
	    cmocka_unit_test(a26_invisible_marks_count_for_nothing),
	    cmocka_unit_test(a26_digits_of_any_script_count),
	    cmocka_unit_test(a8_what_is_no_code_is_refused),
	    cmocka_unit_test(a8_no_single_byte_turns_into_a_digit),
	    cmocka_unit_test(golden_mac),
	    cmocka_unit_test(a18_golden_mac_of_a_bound_code),
	    cmocka_unit_test(a18_a_mac_depends_on_what_its_code_is_bound_to),
	    cmocka_unit_test(a7_a_mac_depends_on_pepper_token_and_code),
	};
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, start, NULL);
}
