/* validate.c: otp-validate: whether a code belongs to a token, once, within its life and its few guesses; and what else
   a token's holder may ask. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/jsondoc.h"
#include "base/log.h"
#include "base/process.h"
#include "http/binding.h"
#include "http/caller.h"
#include "http/guess.h"
#include "http/responder.h"
#include "otp/ticket.h"
#include "program.h"

struct request {
	struct guess guess;
	struct caller caller;
	struct binding binding;
};

struct validate {
	struct program_given *given;
	struct guess_answer *answers; /* of the batch that was answered */
	uint64_t quiet_until_ms;      /* about a key that is missing */
};

/* --- Requests --- */

/* What all calls have: who asks, and the token. */
static enum http_outcome read_token(struct validate *validate, struct request *request,
				    const struct responder_request *asked, unsigned char token[static TOKEN_BYTES],
				    struct responder_reply *reply)
{
	struct batch_item *item = &request->guess.item;
	const struct application *application = NULL;
	size_t length = 0;
	const char *text = jsondoc_text(asked->json, "token", &length);
	enum http_outcome outcome =
	    caller_identify(&request->caller, &application, validate->given->applications, asked, &reply->detail);

	if (outcome != HTTP_OK)
		return outcome;
	if (text == NULL || length == 0) {
		reply->detail = "The member token must be a string that is not empty.";
		return HTTP_BAD_REQUEST;
	}
	if (token_read(token, text, length) != RESULT_OK)
		return HTTP_UNKNOWN_TOKEN;
	request->guess.application = caller_application(&request->caller);
	token_id(token, request->guess.id);
	memcpy(item->key, request->guess.id, sizeof(item->key));
	item->group = 0;
	return HTTP_OK;
}

/* The MACs that the guess would have under each pepper in use. */
static void make_macs(const struct key_ring *pepper, struct request *request, const char *password, size_t length,
		      const unsigned char token[static TOKEN_BYTES])
{
	struct guess *guess = &request->guess;
	const struct code_binding binding = {guess->application, guess->purpose, guess->context};
	char code[CODE_MAX + 1];

	guess->digits = 0;
	if (code_read(code, password, length) != RESULT_OK)
		return;
	guess->digits = (int)strlen(code);
	code_mac(guess->mac, pepper->key[0], token, &binding, code);
	if (pepper->count > 1)
		code_mac(guess->previous_mac, pepper->key[1], token, &binding, code);
	sodium_memzero(code, sizeof(code));
}

static enum http_outcome read_guess(void *context, struct batch_item *item, const struct responder_request *asked,
				    struct responder_reply *reply)
{
	const struct validate *validate = context;
	struct request *request = (struct request *)item;
	size_t length = 0;
	const char *password = jsondoc_text(asked->json, "password", &length);
	unsigned char token[TOKEN_BYTES];
	enum http_outcome outcome;

	if (password == NULL || length == 0) {
		reply->detail = "The member password must be a string that is not empty.";
		return HTTP_BAD_REQUEST;
	}
	outcome = read_token(context, request, asked, token, reply);
	if (outcome == HTTP_OK)
		outcome = binding_read(&request->binding, asked->json, token, &reply->detail);
	if (outcome == HTTP_OK) {
		item->call = GUESS_VALIDATE;
		request->guess.purpose = binding_purpose(&request->binding);
		request->guess.context = binding_context(&request->binding);
		make_macs(&validate->given->keys->pepper, request, password, length, token);
	}
	sodium_memzero(token, sizeof(token));
	return outcome;
}

static enum http_outcome read_other(struct validate *validate, struct batch_item *item, enum guess_call call,
				    const struct responder_request *asked, struct responder_reply *reply)
{
	unsigned char token[TOKEN_BYTES];
	enum http_outcome outcome = read_token(validate, (struct request *)item, asked, token, reply);

	item->call = call;
	sodium_memzero(token, sizeof(token));
	return outcome;
}

static enum http_outcome read_revoke(void *context, struct batch_item *item, const struct responder_request *asked,
				     struct responder_reply *reply)
{
	return read_other(context, item, GUESS_REVOKE, asked, reply);
}

static enum http_outcome read_delivery(void *context, struct batch_item *item, const struct responder_request *asked,
				       struct responder_reply *reply)
{
	return read_other(context, item, GUESS_DELIVERY, asked, reply);
}

/* --- The database --- */

static void encode(void *context, struct db_params *params, struct batch_item *const *items, size_t count)
{
	const struct key_ring *pepper = &((struct validate *)context)->given->keys->pepper;

	guess_encode(params, items, count, &(struct guess_keys){pepper->id[0], pepper->count > 1 ? pepper->id[1] : -1});
}

static enum result decode(void *context, unsigned call, const struct pg_result *rows, size_t count)
{
	return guess_decode(call, rows, count, ((struct validate *)context)->answers);
}

/* Once a token takes no guess, every guess of its application that has come by then gets the same answer, right or
   wrong. */
static bool is_shared(void *context, const struct batch_item *item, const struct batch_item *follower, size_t i)
{
	enum http_outcome verdict = ((struct validate *)context)->answers[i].verdict;
	bool is_ended = verdict == HTTP_UNKNOWN_TOKEN || verdict == HTTP_USED || verdict == HTTP_EXHAUSTED ||
			verdict == HTTP_REVOKED || verdict == HTTP_EXPIRED;

	return is_ended && item->call == GUESS_VALIDATE && follower->call == GUESS_VALIDATE &&
	       strcmp(((const struct request *)item)->caller.application,
		      ((const struct request *)follower)->caller.application) == 0;
}

/* --- Answers --- */

/* Somebody makes codes under a key that is not in KEY_DIR, or was not when this process started. */
static void report_unknown_key(struct validate *validate, int key)
{
	if (log_is_due(&validate->quiet_until_ms, clock_boot_ms()))
		log_event(LOG_ERROR, "unknown_key", LOG_NUMBER("key", key));
}

static enum result answer_valid(const struct validate *validate, const struct request *request,
				const struct guess_answer *judged, const struct responder_reply *reply)
{
	char ticket[TICKET_TEXT + 1];
	enum result result;

	ticket_make(ticket, &validate->given->keys->ticket, request->caller.application, judged->mailbox,
		    reply->clock_ms, process_random);
	result = http_validated(reply->answer, &(struct http_validated){.email = judged->email,
									.mailbox = judged->mailbox,
									.purpose = judged->purpose,
									.ticket = ticket,
									.is_test = judged->is_test});
	sodium_memzero(ticket, sizeof(ticket));
	return result;
}

static enum result answer_delivery(const struct guess_answer *judged, struct http_answer *answer)
{
	return http_delivery(answer, &(struct http_delivery){.state = judged->state,
							     .sent_at = judged->sent_at,
							     .reason = judged->reason,
							     .attempts = judged->attempts,
							     .is_test = judged->is_test});
}

static enum http_outcome answer(void *context, struct batch_item *item, size_t verdict, struct responder_reply *reply)
{
	struct validate *validate = context;
	const struct guess_answer *judged = &validate->answers[verdict];
	enum result result = RESULT_OK;

	if (judged->verdict == HTTP_WRONG_PASSWORD)
		reply->number = judged->number;
	if (judged->verdict == HTTP_UNAVAILABLE)
		report_unknown_key(validate, judged->number);
	if (judged->verdict != HTTP_OK)
		return judged->verdict;
	if (item->call == GUESS_VALIDATE)
		result = answer_valid(validate, (const struct request *)item, judged, reply);
	else if (item->call == GUESS_DELIVERY)
		result = answer_delivery(judged, reply->answer);
	else
		http_revoked(reply->answer);
	return result == RESULT_OK ? HTTP_OK : HTTP_INTERNAL;
}

static void reload(void *context)
{
	struct validate *validate = context;

	(void)!program_reload(validate->given);
}

/* --- The program --- */

static const struct db_statement statements[] = {
    [PUMP_PING] = {"ping", PUMP_PING_SQL},
    GUESS_STATEMENTS,
    {NULL, NULL},
};

static const struct responder_route routes[] = {
    {"/validate-password", read_guess}, {"/revoke", read_revoke}, {"/delivery-status", read_delivery}, {NULL, NULL}};

static int run(void *context, struct program_given *given)
{
	struct validate *validate = context;
	const struct responder responder = {
	    .program = PROGRAM_VALIDATE,
	    .routes = routes,
	    .request_bytes = sizeof(struct request),
	    .work = {.statements = statements,
		     .context = validate,
		     .encode = encode,
		     .decode = decode,
		     .is_shared = is_shared},
	    .answer = answer,
	    .reload = reload,
	};
	int status = EXIT_FAILURE;

	validate->given = given;
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
