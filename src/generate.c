/* generate.c: otp-generate: makes a code and its token for an address, or another code for a token, stores both
   unreadably, and queues the mail. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/jsondoc.h"
#include "base/log.h"
#include "base/process.h"
#include "http/ask.h"
#include "http/binding.h"
#include "http/budget.h"
#include "http/caller.h"
#include "http/mint.h"
#include "http/responder.h"
#include "otp/address.h"
#include "otp/reference.h"
#include "otp/ticket.h"
#include "program.h"

#define GROUPS_OF_A_SET 65536U

struct request {
	struct ask ask;
	struct ask_terms terms;
	struct caller caller;
	struct binding binding;
	struct address address; /* of a resend: empty unless it was given */
	unsigned char token[TOKEN_BYTES];
	char token_text[TOKEN_TEXT + 1];
	char locale[LOCALE_BYTES];
	char ticket[TICKET_TEXT + 1]; /* untrusted; "": none */
	char ticket_id[TICKET_ID_TEXT + 1];
	char domain[ADDRESS_MAX + 1];
	int budget_per_hour;
	bool is_budgeted; /* something was taken */
};

struct generate {
	struct program_given *given;
	struct mint mint;
	struct budget *budget;
	unsigned groups;                   /* of the sets of applications before this one */
	unsigned char line_key[KEY_BYTES]; /* keys the batcher's hash: nobody can aim at one slot */
	struct ask_answer *answers;        /* of the batch that was answered */
};

/* --- What both kinds of requests share --- */

static void set_terms(const struct generate *generate, struct request *request, const struct application *application)
{
	request->terms = (struct ask_terms){
	    .application = caller_application(&request->caller),
	    .digits = application->password_length,
	    .lifetime_seconds = application->expire_minutes * 60,
	    .max_attempts = application->max_attempts,
	    .resend_seconds = application->resend_seconds,
	    .sends_per_hour = application->sends_per_hour,
	    .sends_per_day = application->sends_per_day,
	    .retention_seconds = generate->given->settings->retention_hours * 3600,
	    .mac_key = generate->given->keys->pepper.id[0],
	    .mail_key = generate->given->keys->mail_seal.id[0],
	};
	request->ask.terms = &request->terms;
}

/* A ticket that does not hold is as none. */
static void read_ticket(const struct generate *generate, struct request *request, const char *mailbox,
			uint64_t clock_ms)
{
	request->ask.ticket = NULL;
	if (ticket_read(request->ticket_id, &generate->given->keys->ticket, request->ticket, strlen(request->ticket),
			request->caller.application, mailbox, clock_ms) == RESULT_OK)
		request->ask.ticket = request->ticket_id;
}

static struct budget_claim claim_of(const struct request *request)
{
	const char *application = caller_application(&request->caller);

	return (struct budget_claim){.application = application != NULL ? application : APPLICATION_DEFAULT,
				     .per_hour = request->budget_per_hour,
				     .domain = request->domain};
}

/* Whoever has a ticket, and a test address, is not held up by what others have spent. */
static enum http_outcome take_budget(struct generate *generate, struct request *request,
				     const struct application *application, const char *mailbox,
				     struct responder_reply *reply)
{
	bool is_free = request->caller.has_key && !application->is_budget_for_keys;
	struct budget_claim claim;
	enum result result;

	if (request->ask.ticket != NULL || request->ask.is_test)
		return HTTP_OK;
	request->budget_per_hour = is_free ? 0 : application->budget_per_hour;
	memcpy(request->domain, strrchr(mailbox, '@') + 1, strlen(strrchr(mailbox, '@')));
	claim = claim_of(request);
	result = budget_take(generate->budget, &claim, reply->now_ms, &reply->number);
	request->is_budgeted = result == RESULT_OK;
	if (result == RESULT_LIMITED)
		return HTTP_LIMITED;
	return result == RESULT_OK ? HTTP_OK : HTTP_OVER_BUDGET;
}

/* The item of a call that sends a mail: one line for all that is counted together, whatever the spelling. Resends of a
   token are one line whatever ticket they come with: no token may be in a batch twice. */
static void queue_as(struct generate *generate, struct request *request, enum ask_call call,
		     const struct application *application, const char *mailbox)
{
	struct batch_item *item = &request->ask.item;
	crypto_generichash_state state;

	item->call = call;
	item->group = generate->groups + (unsigned)(application - applications_at(generate->given->applications, 0));
	(void)crypto_generichash_init(&state, generate->line_key, sizeof(generate->line_key), sizeof(item->key));
	(void)crypto_generichash_update(&state, (const unsigned char *)mailbox, strlen(mailbox) + 1);
	(void)crypto_generichash_update(&state, (const unsigned char *)request->caller.application,
					strlen(request->caller.application) + 1);
	if (request->ask.ticket != NULL && call != ASK_RESEND)
		(void)crypto_generichash_update(&state, (const unsigned char *)request->ask.ticket, TICKET_ID_TEXT);
	(void)crypto_generichash_final(&state, item->key, sizeof(item->key));
}

static enum http_outcome make_code(struct generate *generate, struct request *request,
				   const struct application *application, const char *mailbox,
				   const struct responder_reply *reply)
{
	const char *fixed = application_test_code(application, mailbox, reply->clock_ms);

	if (mint_code(&generate->mint, &request->ask, request->token, fixed, reply->now_ms) != RESULT_OK)
		return HTTP_INTERNAL;
	if (fixed != NULL)
		log_event(LOG_INFO, "test_code", LOG_TEXT("application", application->name));
	return HTTP_OK;
}

/* --- A new token --- */

static enum http_outcome read_address(struct request *request, const struct responder_request *asked,
				      const struct application *application, struct responder_reply *reply)
{
	struct address *address = &request->address;
	struct ask *ask = &request->ask;
	size_t length = 0;
	const char *text = jsondoc_text(asked->json, "email", &length);

	reply->detail = "The member email is absent, or not a string.";
	if (text == NULL || address_parse(address, text, length, &reply->detail) != RESULT_OK)
		return HTTP_INVALID_EMAIL;
	reply->detail = NULL;
	if (!application_allows_domain(application, strrchr(address->recipient, '@') + 1))
		return HTTP_WRONG_DOMAIN;
	ask->email = address->given;
	ask->recipient = strcmp(address->recipient, address->given) != 0 ? address->recipient : NULL;
	ask->mailbox = strcmp(address->mailbox, address->given) != 0 ? address->mailbox : NULL;
	return HTTP_OK;
}

static enum http_outcome read_new(struct generate *generate, struct request *request,
				  const struct responder_request *asked, const struct application *application,
				  struct responder_reply *reply)
{
	struct ask *ask = &request->ask;
	enum http_outcome outcome = read_address(request, asked, application, reply);

	token_make(request->token, reply->clock_ms, process_random);
	token_id(request->token, ask->id);
	token_write(request->token, request->token_text);
	if (outcome == HTTP_OK)
		outcome = binding_read(&request->binding, asked->json, request->token, &reply->detail);
	if (outcome != HTTP_OK)
		return outcome;
	ask->purpose = binding_purpose(&request->binding);
	ask->context = binding_context(&request->binding);
	if (!application_allows_purpose(application, ask->purpose, strlen(request->binding.purpose))) {
		reply->detail = "The application does not name this purpose.";
		return HTTP_BAD_REQUEST;
	}
	read_ticket(generate, request, request->address.mailbox, reply->clock_ms);
	queue_as(generate, request, ASK_GENERATE, application, request->address.mailbox);
	outcome = make_code(generate, request, application, request->address.mailbox, reply);
	return outcome == HTTP_OK ? take_budget(generate, request, application, request->address.mailbox, reply)
				  : outcome;
}

/* --- A resend --- */

/* What it must be made for is in the database. What the request says of that besides the token must be the same. */
static enum http_outcome read_resend(struct request *request, const struct responder_request *asked,
				     struct responder_reply *reply)
{
	size_t length = 0;
	const char *token = jsondoc_text(asked->json, "token", &length);
	const char *email;

	if (token == NULL) {
		reply->detail = "The member token must be a string.";
		return HTTP_BAD_REQUEST;
	}
	if (token_read(request->token, token, length) != RESULT_OK)
		return HTTP_UNKNOWN_TOKEN;
	email = jsondoc_text(asked->json, "email", &length);
	request->address = (struct address){.mailbox = ""};
	if (jsondoc_member(asked->json, "email") != NULL) {
		reply->detail = "The member email is not a string.";
		if (email == NULL || address_parse(&request->address, email, length, &reply->detail) != RESULT_OK)
			return HTTP_INVALID_EMAIL;
		reply->detail = NULL;
	}
	token_id(request->token, request->ask.id);
	token_write(request->token, request->token_text);
	request->ask.item.call = ASK_TERMS;
	request->ask.item.group = 0;
	memcpy(request->ask.item.key, request->ask.id, sizeof(request->ask.item.key));
	return binding_read(&request->binding, asked->json, request->token, &reply->detail);
}

/* Does the request say the same as the database, as far as it says anything? */
static enum http_outcome compare(const struct request *request, const struct ask_answer *terms,
				 struct responder_reply *reply)
{
	const struct binding *binding = &request->binding;
	const char *purpose = terms->purpose != NULL ? terms->purpose : "";

	if (request->address.mailbox[0] != '\0' && strcmp(request->address.mailbox, terms->mailbox) != 0) {
		reply->detail = "The member email is not the address of the token.";
		return HTTP_INVALID_EMAIL;
	}
	if (binding->purpose[0] != '\0' && strcmp(binding->purpose, purpose) != 0)
		return HTTP_WRONG_PURPOSE;
	if (binding->has_context &&
	    (terms->context == NULL || sodium_memcmp(binding->context, terms->context, CODE_CONTEXT_BYTES) != 0))
		return HTTP_WRONG_PURPOSE;
	return HTTP_OK;
}

/* The request's copies of what the database says. */
static void take_over(struct request *request, const struct ask_answer *terms)
{
	struct ask *ask = &request->ask;

	request->terms.digits = terms->digits;
	request->binding = (struct binding){.has_context = terms->context != NULL};
	if (terms->purpose != NULL)
		(void)stpncpy(request->binding.purpose, terms->purpose, SLUG_MAX);
	if (terms->context != NULL)
		memcpy(request->binding.context, terms->context, CODE_CONTEXT_BYTES);
	if (ask->locale == NULL && terms->locale != NULL && strlen(terms->locale) < sizeof(request->locale)) {
		memcpy(request->locale, terms->locale, strlen(terms->locale) + 1);
		ask->locale = request->locale;
	}
	ask->purpose = binding_purpose(&request->binding);
	ask->context = binding_context(&request->binding);
}

/* The second half of a resend: the code. */
static enum http_outcome resend(struct generate *generate, struct request *request, const struct ask_answer *terms,
				struct responder_reply *reply)
{
	const char *name = caller_application(&request->caller);
	const struct application *application;
	enum http_outcome outcome = compare(request, terms, reply);

	if (outcome != HTTP_OK)
		return outcome;
	application = name != NULL ? applications_find(generate->given->applications, name, strlen(name))
				   : applications_default(generate->given->applications);
	if (application == NULL)
		return HTTP_UNKNOWN_TOKEN; /* it has just vanished from the file */
	take_over(request, terms);
	mint_mail_id(request->ask.mail_id, reply->clock_ms);
	read_ticket(generate, request, terms->mailbox, reply->clock_ms);
	queue_as(generate, request, ASK_RESEND, application, terms->mailbox);
	outcome = make_code(generate, request, application, terms->mailbox, reply);
	if (outcome == HTTP_OK && terms->is_test && !request->ask.is_test)
		return HTTP_EXPIRED; /* the address was one for tests when the token was made */
	return outcome == HTTP_OK ? take_budget(generate, request, application, terms->mailbox, reply) : outcome;
}

/* --- The calls of the responder --- */

/* The member as it is, or else the header's languages. */
static const char *choose_locale(struct request *request, const struct responder_request *asked)
{
	size_t length = 0;
	const char *text = jsondoc_text(asked->json, "locale", &length);
	enum result result = text != NULL ? locale_read(request->locale, text, length)
					  : locale_read_header(request->locale, asked->accept_language);

	return result == RESULT_OK ? request->locale : NULL;
}

static enum http_outcome read_request(void *context, struct batch_item *item, const struct responder_request *asked,
				      struct responder_reply *reply)
{
	struct generate *generate = context;
	struct request *request = (struct request *)item;
	const struct application *application = NULL;
	size_t length = 0;
	const char *ticket = jsondoc_text(asked->json, "ticket", &length);
	enum http_outcome outcome =
	    caller_identify(&request->caller, &application, generate->given->applications, asked, &reply->detail);

	if (outcome != HTTP_OK)
		return outcome;
	set_terms(generate, request, application);
	request->is_budgeted = false;
	request->ask.is_test = false;
	request->ticket[0] = '\0';
	if (ticket != NULL && length <= TICKET_TEXT)
		memcpy(request->ticket, ticket, length + 1);
	request->ask.locale = choose_locale(request, asked);
	if (jsondoc_member(asked->json, "token") != NULL)
		return read_resend(request, asked, reply);
	return read_new(generate, request, asked, application, reply);
}

static void encode(void *context, struct db_params *params, struct batch_item *const *items, size_t count)
{
	(void)context;
	ask_encode(params, items, count);
}

static enum result decode(void *context, unsigned call, const struct pg_result *rows, size_t count)
{
	return ask_decode(call, rows, count, ((struct generate *)context)->answers);
}

/* A limit that holds for one holds for all who asked for the same mailbox by then, and have the same ticket or none. */
static bool is_shared(void *context, const struct batch_item *item, const struct batch_item *follower, size_t i)
{
	const struct generate *generate = context;
	const struct ask *ask = (const struct ask *)item;
	const struct ask *other = (const struct ask *)follower;
	bool has_same_limits = (ask->ticket == NULL) == (other->ticket == NULL) &&
			       (ask->ticket == NULL || strcmp(ask->ticket, other->ticket) == 0);

	return follower->call != ASK_TERMS && has_same_limits && generate->answers[i].verdict == HTTP_LIMITED;
}

static void answer_made(const struct request *request, struct http_answer *answer)
{
	char reference[REFERENCE_TEXT + 1];

	reference_write(request->ask.id, reference);
	http_generated(answer, &(struct http_generated){.token = request->token_text,
							.reference = reference,
							.expires_in = request->terms.lifetime_seconds,
							.resend_after = request->terms.resend_seconds,
							.is_test = request->ask.is_test});
}

static void give_back(struct generate *generate, const struct request *request, uint64_t now_ms)
{
	const struct budget_claim claim = claim_of(request);

	if (request->is_budgeted)
		budget_put_back(generate->budget, &claim, now_ms);
}

static void give_up(void *context, struct batch_item *item, uint64_t now_ms)
{
	give_back(context, (const struct request *)item, now_ms);
}

static enum http_outcome answer(void *context, struct batch_item *item, size_t verdict, struct responder_reply *reply)
{
	struct generate *generate = context;
	struct request *request = (struct request *)item;
	const struct ask_answer *said = &generate->answers[verdict];

	if (said->verdict == HTTP_OK && item->call == ASK_TERMS)
		return resend(generate, request, said, reply);
	if (said->verdict == HTTP_OK)
		answer_made(request, reply->answer);
	else
		give_back(generate, request, reply->now_ms);
	if (said->verdict == HTTP_LIMITED)
		reply->number = said->retry_after;
	return said->verdict;
}

static void reload(void *context)
{
	struct generate *generate = context;

	if (program_reload(generate->given) == RESULT_OK)
		generate->groups += GROUPS_OF_A_SET;
}

/* --- The program --- */

static const struct db_statement statements[] = {
    [PUMP_PING] = {"ping", PUMP_PING_SQL},    ASK_STATEMENTS, [PUMP_BATCH(ASK_CALLS)] = {"notify", "notify otp_mail"},
    {"depth", "select otp.outbox_depth($1)"}, {NULL, NULL},
};

static const struct responder_route routes[] = {{"/generate-password", read_request}, {NULL, NULL}};

static int run(void *context, struct program_given *given)
{
	struct generate *generate = context;
	const struct responder responder = {
	    .program = PROGRAM_GENERATE,
	    .routes = routes,
	    .request_bytes = sizeof(struct request),
	    .work = {.statements = statements,
		     .notify = PUMP_BATCH(ASK_CALLS),
		     .depth = PUMP_BATCH(ASK_CALLS) + 1,
		     .mail_calls = 1U << ASK_GENERATE | 1U << ASK_RESEND,
		     .context = generate,
		     .encode = encode,
		     .decode = decode,
		     .is_shared = is_shared},
	    .answer = answer,
	    .give_up = give_up,
	    .reload = reload,
	};
	int status = EXIT_FAILURE;

	generate->given = given;
	mint_init(&generate->mint, given->keys);
	process_random(generate->line_key, sizeof(generate->line_key));
	generate->budget = budget_new(given->settings->domain_sends_per_hour);
	generate->answers = calloc((size_t)given->settings->batch_max, sizeof(generate->answers[0]));
	if (generate->answers != NULL && generate->budget != NULL)
		status = responder_run(&responder, given->settings);
	free(generate->answers);
	budget_free(generate->budget);
	mint_wipe(&generate->mint);
	return status;
}

int main(int argc, char **argv)
{
	static struct generate generate;
	const struct program_parts parts = {.program = PROGRAM_GENERATE, .context = &generate, .run = run};

	return program_main(&parts, argc, argv);
}
