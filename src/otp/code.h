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

/* What a code counts for; each NULL: for nothing in particular. */
struct code_binding {
	const char *application;
	const char *purpose;
	const unsigned char *context; /* CODE_CONTEXT_BYTES, by code_context */
};

/* mac = BLAKE2b-256(key = pepper, "otpd code 1" || token || code), or, if it is bound to something, of "otpd code 2" ||
   token || application NUL || purpose NUL || context || code. Tests a code only together with its token (A7), and with
   what it was made for (A18). */
void code_mac(unsigned char mac[static CODE_MAC_BYTES], const unsigned char pepper[static 32],
	      const unsigned char token[static TOKEN_BYTES], const struct code_binding *binding, const char *code);

/* What goes to the database instead of what an application binds a code to: BLAKE2b-256 under the token, so that
   nobody who has the database can try out contexts. */
#define CODE_CONTEXT_BYTES 32U
void code_context(unsigned char context[static CODE_CONTEXT_BYTES], const unsigned char token[static TOKEN_BYTES],
		  const char *text, size_t length);

#endif
