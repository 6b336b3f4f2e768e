/* validate.c: otp-validate: whether a code belongs to a token, once, within its life and its few guesses. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/jsondoc.h"
#include "base/log.h"
#include "http/challenge.h"
#include "http/http.h"
#include "http/responder.h"
#include "otp/code.h"
#include "otp/token.h"
#include "program.h"

#define ALARM_MS 60000U /* between two lines about a key that is missing */

struct validate {
	const struct key_ring *pepper;
	struct challenge_answer *answers; /* of the batch that was answered */
	uint64_t alarm_ms;                /* no such line before */
};

/* The MACs that the guess would have under each pepper in use. */
static void read_guess(const struct key_ring *pepper, struct challenge_guess *guess, const char *password,
		       size_t length, const unsigned char token[static TOKEN_BYTES])
{
	char code[CODE_MAX + 1];

	token_id(token, guess->id);
	guess->is_possible = code_read(code, password, length) == RESULT_OK;
	if (!guess->is_possible)
		return;
	code_mac(guess->mac, pepper->key[0], token, code);
	if (pepper->count > 1)
		code_mac(guess->previous_mac, pepper->key[1], token, code);
	sodium_memzero(code, sizeof(code));
}

static enum http_outcome read_request(void *context, struct batch_item *item, struct responder_request *asked)
{
	const struct validate *validate = context;
	struct challenge_guess *guess = (struct challenge_guess *)item;
	size_t password_length = 0;
	size_t token_length = 0;
	const char *password = jsondoc_text(asked->json, "password", &password_length);
	const char *token_text = jsondoc_text(asked->json, "token", &token_length);
	unsigned char token[TOKEN_BYTES];

	if (password == NULL || token_text == NULL || password_length == 0 || token_length == 0) {
		asked->detail = "The members password and token must be strings that are not empty.";
		return HTTP_BAD_REQUEST;
	}
	if (token_read(token, token_text, token_length) != RESULT_OK)
		return HTTP_UNKNOWN_TOKEN;
	read_guess(validate->pepper, guess, password, password_length, token);
	memcpy(item->key, guess->id, sizeof(item->key));
	sodium_memzero(token, sizeof(token));
	return HTTP_OK;
}

static void encode(void *context, struct db_params *params, struct batch_item *const *items, size_t count)
{
	const struct key_ring *pepper = ((struct validate *)context)->pepper;

	challenge_encode_guesses(params, items, count, pepper->id[0], pepper->count > 1 ? pepper->id[1] : -1);
}

static enum result decode(void *context, const struct pg_result *rows, size_t count)
{
	struct validate *validate = context;

	return challenge_decode_guesses(rows, count, validate->answers);
}

/* Somebody makes codes under a key that is not in KEY_DIR, or was not when this process started. */
static void report_unknown_key(struct validate *validate, int key)
{
	uint64_t now_ms = clock_boot_ms();

	if (now_ms < validate->alarm_ms)
		return;
	validate->alarm_ms = now_ms + ALARM_MS;
	log_event(LOG_ERROR, "unknown_key", LOG_NUMBER("key", key));
}

/* Once a token takes no guess, every guess that has come by then gets the same answer, right or wrong. */
static bool is_final(void *context, size_t i)
{
	enum http_outcome verdict = ((struct validate *)context)->answers[i].verdict;

	return verdict != HTTP_OK && verdict != HTTP_WRONG_PASSWORD;
}

static enum http_outcome answer(void *context, const struct batch_item *item, size_t verdict,
				struct http_answer *answer)
{
	struct validate *validate = context;
	const struct challenge_answer *judged = &validate->answers[verdict];
	enum http_outcome outcome = judged->verdict;

	(void)item;
	if (outcome == HTTP_OK && http_validated(answer, judged->email) != RESULT_OK)
		outcome = HTTP_INTERNAL;
	if (outcome == HTTP_UNAVAILABLE) {
		report_unknown_key(validate, judged->unknown_key);
		http_refuse(answer, outcome, RESPONDER_RETRY_SECONDS, NULL);
	} else if (outcome != HTTP_OK) {
		http_refuse(answer, outcome, judged->attempts_left, NULL);
	}
	return outcome;
}

static const struct db_statement statements[] = {
    [PUMP_BATCH] = {"validate", CHALLENGE_VALIDATE_SQL},
    [PUMP_ALONE] = {"validate_alone", CHALLENGE_VALIDATE_ALONE_SQL},
    [PUMP_PING] = {"ping", PUMP_PING_SQL},
    [PUMP_NOTIFY] = {NULL, NULL},
};

static int run(void *context, struct program_given *given)
{
	struct validate *validate = context;
	const struct responder responder = {
	    .program = PROGRAM_VALIDATE,
	    .path = "/validate-password",
	    .request_bytes = sizeof(struct challenge_guess),
	    .work = {.statements = statements,
		     .context = validate,
		     .encode = encode,
		     .decode = decode,
		     .is_final = is_final},
	    .read = read_request,
	    .answer = answer,
	};
	int status = EXIT_FAILURE;

	validate->pepper = &given->keys->pepper;
	validate->answers = calloc((size_t)given->settings->batch_max, sizeof(validate->answers[0]));
	if (validate->answers != NULL)
		status = responder_run(&responder, given->settings);
	free(validate->answers);
	return status;
}

int main(int argc, char **argv)
{
	static struct validate validate;
	const struct program_parts parts = {.program = PROGRAM_VALIDATE, .context = &validate, .run = run};

	return program_main(&parts, argc, argv);
}
