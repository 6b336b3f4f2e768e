/* mint.c: makes tokens and codes: what leaves it is unreadable, but for the token that the client gets. */
#include "http/mint.h"

#include <sodium.h>
#include <string.h>

#include "base/process.h"

void mint_init(struct mint *mint, const struct keys *keys)
{
	mint->keys = keys;
	sealer_init(&mint->sealer, keys->mail_seal.key[0]);
}

void mint_wipe(struct mint *mint)
{
	sealer_wipe(&mint->sealer);
}

enum result mint_code(struct mint *mint, struct ask *ask, const unsigned char token[static TOKEN_BYTES],
		      const char *fixed, uint64_t now_ms)
{
	const struct code_binding binding = {ask->terms->application, ask->purpose, ask->context};
	const unsigned char *mail_id = ask->item.call == ASK_RESEND ? ask->mail_id : ask->id;
	enum result result = RESULT_OK;
	char code[CODE_MAX + 1];

	ask->is_test = fixed != NULL;
	if (fixed != NULL)
		memcpy(code, fixed, strlen(fixed) + 1);
	else
		code_make(code, (size_t)ask->terms->digits, process_uniform);
	code_mac(ask->mac, mint->keys->pepper.key[0], token, &binding, code);
	if (fixed == NULL)
		result = seal_code(&mint->sealer, ask->sealed, mail_id, code, now_ms);
	sodium_memzero(code, sizeof(code));
	return result;
}

void mint_mail_id(unsigned char id[static TOKEN_ID_BYTES], uint64_t clock_ms)
{
	unsigned char token[TOKEN_BYTES];

	token_make(token, clock_ms, process_random);
	memcpy(id, token, TOKEN_ID_BYTES);
	sodium_memzero(token, sizeof(token));
}
