/* generate.c: otp-generate: makes a code and its token for an address, stores both unreadably, and queues the mail. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/log.h"
#include "base/secret.h"
#include "db/db.h"
#include "http/challenge.h"
#include "http/http.h"
#include "http/responder.h"
#include "otp/address.h"
#include "otp/code.h"
#include "otp/seal.h"
#include "otp/token.h"
#include "start.h"

#define LOCALE_MAX 35U /* RFC 5646 4.4.1 */

/* One request. */
struct job {
	struct batch_item item;
	struct challenge_ask ask;
	struct address address;
	char token[TOKEN_TEXT + 1];
	char locale[LOCALE_MAX + 1];
};

struct generate {
	const struct config *config;
	struct secret secret;
	struct sealer sealer;
	struct challenge_terms terms;
	unsigned char line_key[SECRET_KEY_BYTES]; /* keys the batcher's hash: nobody can aim at one slot */
	int *retry_after;                         /* of the batch that was answered */
};

/* A language tag, letters, digits and hyphens; anything else is taken for none. */
static bool read_locale(const struct http_json *json, char locale[static LOCALE_MAX + 1])
{
	size_t length = 0;
	const char *text = http_string(json, "locale", &length);

	if (text == NULL || length == 0 || length > LOCALE_MAX)
		return false;
	for (size_t i = 0; i < length; i++) {
		char c = text[i] == '_' ? '-' : text[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-'))
			return false;
		locale[i] = c;
	}
	locale[length] = '\0';
	return true;
}

static enum result read_address(const struct http_json *json, struct address *address)
{
	size_t length = 0;
	const char *text = http_string(json, "email", &length);

	return text != NULL ? address_parse(address, text, length) : RESULT_INVALID;
}

/* Makes token and code; only the hash, the MAC and the sealed code leave this function, and the token for the client.
 */
static enum result make_secrets(struct generate *generate, struct job *job, uint64_t clock_ms, uint64_t now_ms)
{
	unsigned char token[TOKEN_BYTES];
	char code[CODE_MAX + 1];
	enum result result;

	token_make(token, clock_ms, secret_random);
	code_make(code, (size_t)generate->config->password_length, secret_uniform);
	token_id(token, job->ask.id);
	token_write(token, job->token);
	code_mac(job->ask.mac, generate->secret.pepper.key[0], token, code);
	result = seal_code(&generate->sealer, job->ask.sealed, job->ask.id, code, now_ms);
	sodium_memzero(token, sizeof(token));
	sodium_memzero(code, sizeof(code));
	return result;
}

static bool read_request(void *context, void *data, const struct http_json *json, uint64_t clock_ms, uint64_t now_ms,
			 struct http_answer *answer, enum http_error *error)
{
	struct generate *generate = context;
	struct job *job = data;
	const struct address *address = &job->address;

	if (read_address(json, &job->address) != RESULT_OK) {
		*error = HTTP_INVALID_EMAIL;
		http_refuse(answer, *error, 0);
		return false;
	}
	if (make_secrets(generate, job, clock_ms, now_ms) != RESULT_OK) {
		*error = HTTP_INTERNAL;
		http_refuse(answer, *error, 0);
		return false;
	}
	job->ask.email = address->given;
	job->ask.recipient = strcmp(address->recipient, address->given) != 0 ? address->recipient : NULL;
	job->ask.mailbox = strcmp(address->mailbox, address->given) != 0 ? address->mailbox : NULL;
	job->ask.locale = read_locale(json, job->locale) ? job->locale : NULL;
	/* One line per mailbox, whatever the spelling. */
	crypto_generichash(job->item.key, sizeof(job->item.key), (const unsigned char *)address->mailbox,
			   strlen(address->mailbox), generate->line_key, sizeof(generate->line_key));
	return true;
}

static const struct challenge_ask *get_ask(void *items, size_t i)
{
	return &((struct job *)((struct batch_item **)items)[i])->ask;
}

static void encode(void *context, struct db_params *params, struct batch_item **items, size_t count)
{
	struct generate *generate = context;

	challenge_encode_asks(params, count, get_ask, items, &generate->terms);
}

static enum result decode(void *context, const struct db_rows *rows, size_t count)
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

static enum http_error answer(void *context, size_t i, const void *data, struct http_answer *answer)
{
	struct generate *generate = context;
	const struct job *job = data;
	int retry_after = generate->retry_after[i];

	if (retry_after > 0) {
		http_refuse(answer, HTTP_LIMITED, retry_after);
		return HTTP_LIMITED;
	}
	http_generated(answer, job->token, generate->terms.lifetime_seconds, generate->terms.resend_seconds);
	return HTTP_ERRORS;
}

static const struct db_statement statements[] = {
    [RESPONDER_BATCH] = {"generate", CHALLENGE_GENERATE_SQL},
    [RESPONDER_PING] = {"ping", RESPONDER_PING_SQL},
    [RESPONDER_NOTIFY] = {"notify", "notify otp_mail"},
    {NULL, NULL},
};

static enum result prepare(struct generate *generate, const struct config *config)
{
	const struct secret *secret = &generate->secret;

	generate->config = config;
	generate->terms = (struct challenge_terms){
	    .mac_key = secret->pepper.id[0],
	    .mail_key = secret->mail_seal.id[0],
	    .lifetime_seconds = config->expire_minutes * 60,
	    .max_attempts = config->max_attempts,
	    .resend_seconds = config->resend_seconds,
	    .sends_per_hour = config->sends_per_hour,
	    .sends_per_day = config->sends_per_day,
	};
	sealer_init(&generate->sealer, secret->mail_seal.key[0]);
	secret_random(generate->line_key, sizeof(generate->line_key));
	generate->retry_after = calloc((size_t)config->batch_max, sizeof(generate->retry_after[0]));
	return generate->retry_after != NULL ? RESULT_OK : RESULT_FAULT;
}

int main(int argc, char **argv)
{
	static struct generate generate;
	static struct config config;
	const struct responder responder = {
	    .program = PROGRAM_GENERATE,
	    .path = "/generate-password",
	    .job_bytes = sizeof(struct job),
	    .statements = statements,
	    .may_retry = true, /* refused as a whole, nothing was stored, and a row has its own id */
	    .context = &generate,
	    .read = read_request,
	    .encode = encode,
	    .decode = decode,
	    .is_final = is_final,
	    .answer = answer,
	};
	int status = 0;

	if (!start_responder(PROGRAM_GENERATE, argc, argv, &config, &generate.secret, &status))
		return status;
	status = EXIT_FAILURE;
	if (prepare(&generate, &config) == RESULT_OK)
		status = responder_run(&responder, &config);
	free(generate.retry_after);
	sealer_wipe(&generate.sealer);
	secret_wipe(&generate.secret);
	return status;
}
