/* code.c: the digits a person types, and their keyed hash. */
#include "otp/code.h"

#include <sodium.h>
#include <stdbool.h>
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

/* A text and its NUL: no text can run into what follows. */
static void update_text(crypto_generichash_state *state, const char *text)
{
	const char *known = text != NULL ? text : "";

	(void)crypto_generichash_update(state, (const unsigned char *)known, strlen(known) + 1);
}

void code_mac(unsigned char mac[static CODE_MAC_BYTES], const unsigned char pepper[static 32],
	      const unsigned char token[static TOKEN_BYTES], const struct code_binding *binding, const char *code)
{
	bool is_bound = binding->application != NULL || binding->purpose != NULL || binding->context != NULL;
	const char *label = is_bound ? "otpd code 2" : "otpd code 1";
	crypto_generichash_state state;

	(void)crypto_generichash_init(&state, pepper, 32, CODE_MAC_BYTES);
	(void)crypto_generichash_update(&state, (const unsigned char *)label, strlen(label));
	(void)crypto_generichash_update(&state, token, TOKEN_BYTES);
	if (is_bound) {
		update_text(&state, binding->application);
		update_text(&state, binding->purpose);
	}
	if (binding->context != NULL)
		(void)crypto_generichash_update(&state, binding->context, CODE_CONTEXT_BYTES);
	(void)crypto_generichash_update(&state, (const unsigned char *)code, strlen(code));
	(void)crypto_generichash_final(&state, mac, CODE_MAC_BYTES);
	sodium_memzero(&state, sizeof(state));
}

void code_context(unsigned char context[static CODE_CONTEXT_BYTES], const unsigned char token[static TOKEN_BYTES],
		  const char *text, size_t length)
{
	(void)crypto_generichash(context, CODE_CONTEXT_BYTES, (const unsigned char *)text, length, token, TOKEN_BYTES);
}
