/* generate.c: otp-generate: makes a code and its token for an address, stores both unreadably, and queues the mail. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsondoc.h"
#include "base/process.h"
#include "http/challenge.h"
#include "http/http.h"
#include "http/responder.h"
#include "otp/address.h"
#include "otp/code.h"
#include "otp/locale.h"
#include "otp/seal.h"
#include "otp/token.h"
#include "program.h"

struct request {
	struct challenge_ask ask;
	struct address address;
	char token[TOKEN_TEXT + 1];
	char locale[LOCALE_BYTES];
};

struct generate {
	const struct keys *keys;
	struct sealer sealer;
	struct challenge_terms terms;
	size_t code_length;
	unsigned char line_key[KEY_BYTES]; /* keys the batcher's hash: nobody can aim at one slot */
	int *retry_after;                  /* of the batch that was answered */
};

/* The member as it is, or else the header's languages. */
static const char *choose_locale(struct request *request, const struct responder_request *asked)
{
	size_t length = 0;
	const char *text = jsondoc_text(asked->json, "locale", &length);
	enum result result = text != NULL ? locale_read(request->locale, text, length)
					  : locale_read_header(request->locale, asked->accept_language);

	return result == RESULT_OK ? request->locale : NULL;
}

static enum result read_address(struct address *address, struct responder_request *asked)
{
	size_t length = 0;
	const char *text = jsondoc_text(asked->json, "email", &length);

	asked->detail = "The member email is absent, or not a string.";
	return text != NULL ? address_parse(address, text, length, &asked->detail) : RESULT_INVALID;
}

/* Makes token and code; only the hash, the MAC and the sealed code leave this function, and the token for the client.
 */
static enum result make_secrets(struct generate *generate, struct request *request, uint64_t clock_ms, uint64_t now_ms)
{
	struct challenge_ask *ask = &request->ask;
	unsigned char token[TOKEN_BYTES];
	char code[CODE_MAX + 1];
	enum result result;

	token_make(token, clock_ms, process_random);
	code_make(code, generate->code_length, process_uniform);
	token_id(token, ask->id);
	token_write(token, request->token);
	code_mac(ask->mac, generate->keys->pepper.key[0], token, code);
	result = seal_code(&generate->sealer, ask->sealed, ask->id, code, now_ms);
	sodium_memzero(token, sizeof(token));
	sodium_memzero(code, sizeof(code));
	return result;
}

static enum http_outcome read_request(void *context, struct batch_item *item, struct responder_request *asked)
{
	struct generate *generate = context;
	struct request *request = (struct request *)item;
	const struct address *address = &request->address;
	struct challenge_ask *ask = &request->ask;

	if (read_address(&request->address, asked) != RESULT_OK)
		return HTTP_INVALID_EMAIL;
	asked->detail = NULL;
	if (make_secrets(generate, request, asked->clock_ms, asked->now_ms) != RESULT_OK)
		return HTTP_INTERNAL;
	ask->email = address->given;
	ask->recipient = strcmp(address->recipient, address->given) != 0 ? address->recipient : NULL;
	ask->mailbox = strcmp(address->mailbox, address->given) != 0 ? address->mailbox : NULL;
	ask->locale = choose_locale(request, asked);
	/* One line per mailbox, whatever the spelling. */
	crypto_generichash(item->key, sizeof(item->key), (const unsigned char *)address->mailbox,
			   strlen(address->mailbox), generate->line_key, sizeof(generate->line_key));
	return HTTP_OK;
}

static void encode(void *context, struct db_params *params, struct batch_item *const *items, size_t count)
{
	struct generate *generate = context;

	challenge_encode_asks(params, items, count, &generate->terms);
}

static enum result decode(void *context, const struct pg_result *rows, size_t count)
{
	struct generate *generate = context;

	return challenge_decode_asks(rows, count, generate->retry_after);
}

/* A limit that holds for one holds for all who asked for the same mailbox by then. */
static bool is_final(void *context, size_t i)
{
	struct generate *generate = context;

	return generate->retry_after[i] > 0;
}

static enum http_outcome answer(void *context, const struct batch_item *item, size_t verdict,
				struct http_answer *answer)
{
	struct generate *generate = context;
	const struct request *request = (const struct request *)item;
	int retry_after = generate->retry_after[verdict];

	if (retry_after > 0) {
		http_refuse(answer, HTTP_LIMITED, retry_after, NULL);
		return HTTP_LIMITED;
	}
	http_generated(answer, request->token, generate->terms.lifetime_seconds, generate->terms.resend_seconds);
	return HTTP_OK;
}

static const struct db_statement statements[] = {
    [PUMP_BATCH] = {"generate", CHALLENGE_GENERATE_SQL},
    [PUMP_ALONE] = {"generate_alone", CHALLENGE_GENERATE_ALONE_SQL},
    [PUMP_PING] = {"ping", PUMP_PING_SQL},
    [PUMP_NOTIFY] = {"notify", "notify otp_mail"},
    {NULL, NULL},
};

static enum result open_generate(struct generate *generate, const struct settings *settings, const struct keys *keys)
{
	generate->keys = keys;
	generate->code_length = (size_t)settings->password_length;
	generate->terms = (struct challenge_terms){
	    .mac_key = keys->pepper.id[0],
	    .mail_key = keys->mail_seal.id[0],
	    .lifetime_seconds = settings->expire_minutes * 60,
	    .max_attempts = settings->max_attempts,
	    .resend_seconds = settings->resend_seconds,
	    .sends_per_hour = settings->sends_per_hour,
	    .sends_per_day = settings->sends_per_day,
	};
	sealer_init(&generate->sealer, keys->mail_seal.key[0]);
	process_random(generate->line_key, sizeof(generate->line_key));
	generate->retry_after = calloc((size_t)settings->batch_max, sizeof(generate->retry_after[0]));
	return generate->retry_after != NULL ? RESULT_OK : RESULT_FAULT;
}

static int run(void *context, struct program_given *given)
{
	struct generate *generate = context;
	const struct responder responder = {
	    .program = PROGRAM_GENERATE,
	    .path = "/generate-password",
	    .request_bytes = sizeof(struct request),
	    .work = {.statements = statements,
		     .context = generate,
		     .encode = encode,
		     .decode = decode,
		     .is_final = is_final},
	    .read = read_request,
	    .answer = answer,
	};
	int status = EXIT_FAILURE;

	if (open_generate(generate, given->settings, given->keys) == RESULT_OK)
		status = responder_run(&responder, given->settings);
	free(generate->retry_after);
	sealer_wipe(&generate->sealer);
	return status;
}

int main(int argc, char **argv)
{
	static struct generate generate;
	const struct program_parts parts = {.program = PROGRAM_GENERATE, .context = &generate, .run = run};

	return program_main(&parts, argc, argv);
}
