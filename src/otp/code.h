/* code.h: the digits a person types, and their keyed hash. */
#ifndef OTP_CODE_H
#define OTP_CODE_H

#include <stddef.h>

#include "base/result.h"
#include "otp/token.h"

#define CODE_MIN 4U
#define CODE_MAX 12U
#define CODE_MAC_BYTES 32U

/* length uniform decimal digits and a NUL. uniform(10) must return 0 to 9. */
void code_make(char code[static CODE_MAX + 1], size_t length, unsigned (*uniform)(unsigned bound));

/* Reads what a person typed or pasted, by Unicode's tables: digits of any script count as their value; spaces, control
   and format characters and dashes around and between them count for nothing. RESULT_INVALID if it cannot be a code:
   other characters, under CODE_MIN or over CODE_MAX digits. */
OTP_MUST_CHECK enum result code_read(char code[static CODE_MAX + 1], const char *text, size_t length);

/* mac = BLAKE2b-256(key = pepper, "otpd code 1" || token || code). Tests a code only together with its token (A7). */
void code_mac(unsigned char mac[static CODE_MAC_BYTES], const unsigned char pepper[static 32],
	      const unsigned char token[static TOKEN_BYTES], const char *code);

#endif
