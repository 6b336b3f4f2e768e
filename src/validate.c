/* validate.c: otp-validate: tells whether a code belongs to a token, once, within its life and its few guesses. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/config.h"
#include "base/secret.h"
#include "db/db.h"
#include "http/challenge.h"
#include "http/http.h"
#include "http/responder.h"
#include "otp/code.h"
#include "otp/token.h"
#include "start.h"

/* One request. */
struct job {
	struct batch_item item;
	struct challenge_guess guess;
};

struct validate {
	struct secret secret;
	struct challenge_answer *answers; /* of the batch that was answered */
};

/* The MACs that the guess would have under each pepper in use. */
static void read_guess(const struct validate *validate, struct challenge_guess *guess, const char *password,
		       size_t length, const unsigned char token[static TOKEN_BYTES])
{
	const struct secret_keys *pepper = &validate->secret.pepper;
	char code[CODE_MAX + 1];

	token_id(token, guess->id);
	guess->possible = code_read(code, password, length) == RESULT_OK;
	if (!guess->possible)
		return;
	code_mac(guess->mac, pepper->key[0], token, code);
	if (pepper->count > 1)
		code_mac(guess->previous_mac, pepper->key[1], token, code);
	sodium_memzero(code, sizeof(code));
}

static bool read_request(void *context, void *data, const struct http_json *json, uint64_t clock_ms, uint64_t now_ms,
			 struct http_answer *answer, enum http_error *error)
{
	struct validate *validate = context;
	struct job *job = data;
	size_t password_length = 0;
	size_t token_length = 0;
	const char *password = http_string(json, "password", &password_length);
	const char *token_text = http_string(json, "token", &token_length);
	unsigned char token[TOKEN_BYTES];

	(void)clock_ms;
	(void)now_ms;
	if (password == NULL || token_text == NULL || password_length == 0 || token_length == 0) {
		*error = HTTP_BAD_REQUEST;
		http_refuse(answer, *error, 0);
		return false;
	}
	if (token_read(token, token_text, token_length) != RESULT_OK) {
		*error = HTTP_UNKNOWN_TOKEN;
		http_refuse(answer, *error, 0);
		return false;
	}
	read_guess(validate, &job->guess, password, password_length, token);
	memcpy(job->item.key, job->guess.id, sizeof(job->item.key));
	sodium_memzero(token, sizeof(token));
	return true;
}

static const struct challenge_guess *get_guess(void *items, size_t i)
{
	return &((struct job *)((struct batch_item **)items)[i])->guess;
}

static void encode(void *context, struct db_params *params, struct batch_item **items, size_t count)
{
	const struct secret_keys *pepper = &((struct validate *)context)->secret.pepper;

	challenge_encode_guesses(params, count, get_guess, items, pepper->id[0],
				 pepper->count > 1 ? pepper->id[1] : -1);
}

static enum result decode(void *context, const struct db_rows *rows, size_t count)
{
	struct validate *validate = context;

	return challenge_decode_guesses(rows, count, validate->answers);
}

static const enum http_error errors[] = {
    [CHALLENGE_VALID] = HTTP_ERRORS,        [CHALLENGE_WRONG_PASSWORD] = HTTP_WRONG_PASSWORD,
    [CHALLENGE_EXPIRED] = HTTP_EXPIRED,     [CHALLENGE_USED] = HTTP_USED,
    [CHALLENGE_EXHAUSTED] = HTTP_EXHAUSTED, [CHALLENGE_UNKNOWN_TOKEN] = HTTP_UNKNOWN_TOKEN,
};

/* Once a token takes no guess, every guess that has come by then gets the same answer, right or wrong. */
static bool is_final(void *context, size_t i)
{
	enum challenge_verdict verdict = ((struct validate *)context)->answers[i].verdict;

	return verdict != CHALLENGE_VALID && verdict != CHALLENGE_WRONG_PASSWORD;
}

static enum http_error answer(void *context, size_t i, const void *data, struct http_answer *answer)
{
	const struct challenge_answer *verdict = &((struct validate *)context)->answers[i];
	enum http_error error = errors[verdict->verdict];

	(void)data;
	if (verdict->verdict != CHALLENGE_VALID) {
		http_refuse(answer, error, verdict->attempts_left);
	} else if (http_validated(answer, verdict->email) != RESULT_OK) {
		error = HTTP_INTERNAL;
		http_refuse(answer, error, 0);
	}
	return error;
}

static const struct db_statement statements[] = {
    [RESPONDER_BATCH] = {"validate", CHALLENGE_VALIDATE_SQL},
    [RESPONDER_PING] = {"ping", RESPONDER_PING_SQL},
    [RESPONDER_NOTIFY] = {NULL, NULL},
};

int main(int argc, char **argv)
{
	static struct validate validate;
	static struct config config;
	const struct responder responder = {
	    .program = PROGRAM_VALIDATE,
	    .path = "/validate-password",
	    .job_bytes = sizeof(struct job),
	    .statements = statements,
	    .may_retry = false, /* a guess is never evaluated twice, whatever became of it */
	    .context = &validate,
	    .read = read_request,
	    .encode = encode,
	    .decode = decode,
	    .is_final = is_final,
	    .answer = answer,
	};
	int status = 0;

	if (!start_responder(PROGRAM_VALIDATE, argc, argv, &config, &validate.secret, &status))
		return status;
	status = EXIT_FAILURE;
	validate.answers = calloc((size_t)config.batch_max, sizeof(validate.answers[0]));
	if (validate.answers != NULL)
		status = responder_run(&responder, &config);
	free(validate.answers);
	secret_wipe(&validate.secret);
	return status;
}
