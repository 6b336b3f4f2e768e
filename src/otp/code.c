/* code.c: the digits a person types, and their keyed hash. */
#include "otp/code.h"

#include <sodium.h>
#include <string.h>

void code_make(char code[static CODE_MAX + 1], size_t length, unsigned (*uniform)(unsigned bound))
{
	for (size_t i = 0; i < length; i++)
		code[i] = (char)('0' + uniform(10));
	code[length] = '\0';
}

/* The bytes of the filler that text begins with: ASCII white space, a hyphen, the spaces and dashes U+2000 to U+2015,
   no-break spaces U+00A0 and U+202F, the minus sign U+2212; 0 if it is none. */
static size_t filler_length(const unsigned char *text, size_t left)
{
	if (text[0] != '\0' && strchr(" -\t\r\n", text[0]) != NULL)
		return 1;
	if (left >= 2 && text[0] == 0xC2 && text[1] == 0xA0)
		return 2;
	if (left < 3 || text[0] != 0xE2)
		return 0;
	if (text[1] == 0x80 && ((text[2] >= 0x80 && text[2] <= 0x95) || text[2] == 0xAF))
		return 3;
	return text[1] == 0x88 && text[2] == 0x92 ? 3 : 0;
}

enum result code_read(char code[static CODE_MAX + 1], const char *text, size_t length)
{
	char digits[CODE_MAX + 1];
	size_t count = 0;
	enum result result = RESULT_INVALID;

	for (size_t at = 0; at < length;) {
		size_t filler = filler_length((const unsigned char *)text + at, length - at);

		if (filler == 0) {
			if (text[at] < '0' || text[at] > '9' || count == CODE_MAX)
				goto out;
			digits[count++] = text[at];
			filler = 1;
		}
		at += filler;
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
