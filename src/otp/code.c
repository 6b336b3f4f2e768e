/* code.c: the digits a person types, and their keyed hash. */
#include "otp/code.h"

#include <sodium.h>
#include <string.h>

#include "base/unicode.h"

void code_make(char code[static CODE_MAX + 1], size_t length, unsigned (*uniform)(unsigned bound))
{
	for (size_t i = 0; i < length; i++)
		code[i] = (char)('0' + uniform(10));
	code[length] = '\0';
}

enum result code_read(char code[static CODE_MAX + 1], const char *text, size_t length)
{
	enum result result = RESULT_INVALID;
	char digits[CODE_MAX + 1];
	size_t count = 0;

	while (length > 0) {
		uint32_t character = 0;
		size_t step = unicode_next(text, length, &character);
		int digit = unicode_digit(character);

		if (step == 0 || (digit >= 0 && count == CODE_MAX))
			goto out;
		if (digit >= 0)
			digits[count++] = (char)('0' + digit);
		else if (character == '\0' || (!unicode_is_blank(character) && !unicode_is_dash(character)))
			goto out;
		text += step;
		length -= step;
	}
	if (count >= CODE_MIN) {
		memcpy(code, digits, count);
		code[count] = '\0';
		result = RESULT_OK;
	}
out:
	sodium_memzero(digits, sizeof(digits));
	return result;
}

void code_mac(unsigned char mac[static CODE_MAC_BYTES], const unsigned char pepper[static 32],
	      const unsigned char token[static TOKEN_BYTES], const char *code)
{
	static const unsigned char context[] = "otpd code 1";

	crypto_generichash_state state;
	(void)crypto_generichash_init(&state, pepper, 32, CODE_MAC_BYTES);
	(void)crypto_generichash_update(&state, context, sizeof(context) - 1);
	(void)crypto_generichash_update(&state, token, TOKEN_BYTES);
	(void)crypto_generichash_update(&state, (const unsigned char *)code, strlen(code));
	(void)crypto_generichash_final(&state, mac, CODE_MAC_BYTES);
	sodium_memzero(&state, sizeof(state));
}
