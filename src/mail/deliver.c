/* deliver.c: a delivery process: takes queued mails, sends them, records what became of them. */
#include "mail/deliver.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/process.h"
#include "mail/outbox.h"

#define RENEW_AFTER 5000U
#define POLL_MS 1000 /* the table is the truth, a notification only a hint */
#define SETTLE_AGAIN_MS 500
#define SETTLE_AT_EXIT_MS 5000U /* how long a process that is to end tries to record what it has done */
#define LEASE_MARGIN_MS 1000U   /* sending ends so long before the lease */

/* One claim is for several sessions with a relay: a commit costs much more than a connection. */
#define CLAIM_SESSIONS 5U
#define CLAIM_MAX 50U

/* While the queue is long and the relay quick, the next mails are claimed while those at hand are sent: so many that
   the server's answer fits the socket, since it commits only when all is written, and no more row may be locked then.
 */
#define AHEAD_MAX 100U
#define AHEAD_SESSION_MS 1000U

/* Mails under one lease. */
struct claim {
	struct outbox_batch batch;
	size_t asked; /* how many there could have been */
	uint64_t start_ms;
	uint64_t lease_ms;    /* the shortest of its mails */
	uint64_t deadline_ms; /* nothing is sent after it */
};

struct run {
	const struct deliver *deliver;
	struct loop *loop;
	struct outbox *outbox;
	size_t max;
	struct claim claim[2];
	struct claim *at_hand; /* to be sent; the other one was sent and is to be settled, or empty */
	uint64_t session_ms;   /* how long the last mails took to send */
	size_t jobs;           /* the sendable ones at hand */
	size_t sent;           /* mails that were tried, by this process */
	struct smtp_mail *job;
	struct outbox_mail **mail_of; /* of each job */
	char *text;                   /* MESSAGE_BYTES: the mail being sent */
	bool was_hung_up;             /* the texts have changed */
};

int deliver_backoff_seconds(int attempts, unsigned (*uniform)(unsigned bound))
{
	int base = attempts < 1 ? 2 : attempts > 5 ? 60 : 1 << attempts;

	return base - base / 4 + (int)uniform((unsigned)base / 2 + 1);
}

/* Is the process to end after the mail at hand: for good, or for one that has the new texts? */
static bool is_ending(struct run *run)
{
	bool is_stopping = loop_is_stopping(run->loop);

	run->was_hung_up = loop_take_hangup(run->loop) || run->was_hung_up;
	return is_stopping || run->was_hung_up;
}

/* --- Sending --- */

static enum result compose(void *context, const struct smtp_mail *job, const char **text, size_t *length)
{
	struct run *run = context;
	const struct outbox_mail *mail = run->mail_of[job - run->job];
	struct message_request request = {.recipient = mail->recipient,
					  .code = mail->code,
					  .locale = mail->locale,
					  .purpose = mail->purpose,
					  .created_ms = mail->created_ms,
					  .expires_ms = mail->expires_ms};
	enum result result;

	/* The process may have been stopped for a while. */
	if (clock_boot_ms() >= run->at_hand->deadline_ms || outbox_is_withdrawn(run->outbox, mail))
		return RESULT_UNAVAILABLE;
	memcpy(request.id, mail->id, sizeof(request.id));
	memcpy(request.challenge, mail->challenge, sizeof(request.challenge));
	result = message_build(composers_find(run->deliver->composers, mail->application), &request, run->text,
			       MESSAGE_BYTES, length);
	*text = run->text;
	return result;
}

static bool goes_on(void *context)
{
	return !is_ending(context);
}

static enum outbox_outcome outcome_of(enum smtp_outcome outcome)
{
	switch (outcome) {
	case SMTP_SENT:
		return OUTBOX_SENT;
	case SMTP_FAILED:
		return OUTBOX_FAILED;
	case SMTP_RETRY:
		return OUTBOX_RETRY;
	case SMTP_UNTRIED:
		return OUTBOX_RELEASE;
	}
	return OUTBOX_RETRY;
}

/* One line per attempt. */
static void log_attempt(const struct outbox_mail *mail, const struct smtp_mail *job)
{
	enum log_level level = mail->outcome == OUTBOX_SENT ? LOG_INFO : job->is_our_fault ? LOG_ERROR : LOG_WARNING;
	char id[TOKEN_ID_TEXT + 1];
	char address[LOG_MASKED_BYTES];
	struct smtp_reply reply = mail->reply;

	if (mail->outcome == OUTBOX_RELEASE || !log_enabled(level))
		return;
	smtp_reply_mask(&reply, mail->recipient);
	token_id_write(mail->id, id);
	log_event(level, "mail", LOG_TEXT("id", id), LOG_TEXT("outcome", outbox_outcome_name(mail->outcome)),
		  LOG_TEXT("to", log_mask_address(mail->recipient, address)), LOG_TEXT("relay", job->relay),
		  LOG_NUMBER("code", reply.code), LOG_TEXT("reply", reply.text), LOG_NUMBER("attempt", mail->attempts),
		  LOG_NUMBER("delay_ms", job->finished_ms - mail->created_ms),
		  LOG_NUMBER("retry_seconds", mail->retry_seconds));
}

static void take_outcome(struct outbox_mail *mail, struct smtp_mail *job)
{
	mail->outcome = outcome_of(job->outcome);
	mail->doubts = job->doubts;
	/* Relays may quote what they refuse. */
	mail->reply = job->reply;
	mail->finished_ms = job->finished_ms;
	smtp_reply_mask(&mail->reply, mail->code);
	if (mail->outcome == OUTBOX_RETRY)
		mail->retry_seconds = deliver_backoff_seconds(mail->attempts, process_uniform);
	log_attempt(mail, job);
}

/* Makes a job of a mail that can be sent. */
static void add_job(struct run *run, struct outbox_mail *mail)
{
	const struct deliver *deliver = run->deliver;
	const struct message_composer *composer = composers_find(deliver->composers, mail->application);
	const char *return_path = deliver->settings->return_path;

	if (composer == NULL) {
		outbox_refuse(mail, "its application is not in the file any more");
		return;
	}
	run->mail_of[run->jobs] = mail;
	run->job[run->jobs++] =
	    (struct smtp_mail){.sender = return_path[0] != '\0' ? return_path : message_composer_sender(composer),
			       .recipient = mail->recipient,
			       .doubts = mail->doubts};
}

/* Sends what is at hand; afterwards every mail has its outcome. */
static void send_all(struct run *run)
{
	const struct smtp_source source = {.context = run, .compose = compose, .goes_on = goes_on};
	struct outbox_batch *batch = &run->at_hand->batch;
	uint64_t start_ms = clock_boot_ms();

	run->jobs = 0;
	for (size_t i = 0; i < batch->count; i++)
		if (batch->mails[i].is_sendable)
			add_job(run, &batch->mails[i]);
	if (run->jobs > 0 && !is_ending(run))
		smtp_send_mails(run->deliver->smtp, run->job, run->jobs, &source, run->at_hand->deadline_ms);
	run->sent += run->jobs;
	for (size_t i = 0; i < run->jobs; i++)
		take_outcome(run->mail_of[i], &run->job[i]);
	explicit_bzero(run->text, MESSAGE_BYTES);
	run->session_ms = clock_boot_ms() - start_ms;
}

/* --- The loop --- */

static void report_lost(size_t lost)
{
	if (lost > 0)
		log_event(LOG_WARNING, "lease_lost", LOG_NUMBER("mails", (long long)lost));
}

/* A moment between two tries; a request to stop does not shorten it, since there is still something to record. */
static void pause_settling(struct run *run)
{
	uint64_t until_ms = clock_ms() + SETTLE_AGAIN_MS;

	for (uint64_t now_ms; (now_ms = clock_ms()) < until_ms;)
		(void)loop_round(run->loop, (int)(until_ms - now_ms));
}

/* Records the outcomes, if need be again and again: while the database is away, nobody else can claim them either, and
   if somebody has, our lease is no longer valid and nothing is overwritten. */
static void settle(struct run *run, struct outbox_batch *batch)
{
	uint64_t give_up_ms = 0;

	while (batch->count > 0) {
		size_t lost = 0;
		enum result result = outbox_connect(run->outbox);

		if (result == RESULT_OK)
			result = outbox_settle(run->outbox, batch, &lost);
		report_lost(lost);
		if (loop_stop_count(run->loop) > 0 && give_up_ms == 0)
			give_up_ms = clock_boot_ms() + SETTLE_AT_EXIT_MS;
		if (result == RESULT_OK || result == RESULT_FAULT) {
			outbox_batch_wipe(batch);
		} else if (give_up_ms != 0 && clock_boot_ms() >= give_up_ms) {
			log_event(LOG_ERROR, "settle_failed", LOG_NUMBER("mails", (long long)batch->count));
			outbox_batch_wipe(batch);
		} else {
			pause_settling(run);
		}
	}
}

/* The claim that was sent, or is empty. */
static struct claim *other(struct run *run)
{
	return run->at_hand == &run->claim[0] ? &run->claim[1] : &run->claim[0];
}

/* Records what was sent and gives back what was not begun. */
static void settle_all(struct run *run)
{
	settle(run, &other(run)->batch);
	settle(run, &run->at_hand->batch);
}

/* Begins to settle a claim that was sent and to claim up to max mails in its place. */
static enum result exchange_begin(struct run *run, struct claim *claim, size_t max)
{
	claim->asked = max;
	claim->start_ms = clock_boot_ms();
	return outbox_exchange_begin(run->outbox, &claim->batch, max);
}

/* The rows say how long their mails may be sent, counted from before they were claimed. */
static void read_lease(struct claim *claim)
{
	claim->lease_ms = UINT32_MAX;
	for (size_t i = 0; i < claim->batch.count; i++) {
		int32_t lease_ms = claim->batch.mails[i].lease_ms;

		if (lease_ms < (int64_t)claim->lease_ms)
			claim->lease_ms = lease_ms > 0 ? (uint64_t)lease_ms : 0;
	}
	claim->deadline_ms =
	    claim->start_ms + (claim->lease_ms > LEASE_MARGIN_MS ? claim->lease_ms - LEASE_MARGIN_MS : 0);
}

/* Whatever comes of it, the claim that was sent is settled then. */
static enum result exchange_end(struct run *run, struct claim *claim, enum result begun)
{
	size_t lost = 0;
	enum result result = begun == RESULT_OK ? outbox_exchange_end(run->outbox, &claim->batch, &lost) : begun;

	report_lost(lost);
	if (result == RESULT_OK)
		read_lease(claim);
	else
		settle(run, &claim->batch);
	return result;
}

/* Settles what was sent and claims mails. RESULT_LIMITED: there are none. */
static enum result claim_some(struct run *run)
{
	struct claim *claim = other(run);
	enum result result = outbox_connect(run->outbox);

	if (result == RESULT_OK)
		result = exchange_begin(run, claim, smtp_send_is_well(run->deliver->smtp) ? run->max : 1);
	result = exchange_end(run, claim, result);
	if (result != RESULT_OK)
		return result;
	run->at_hand = claim;
	return claim->batch.count > 0 ? RESULT_OK : RESULT_LIMITED;
}

/* How many mails to claim while those at hand are sent. 0 unless that pays: another process may have none to send. */
static size_t count_ahead(const struct run *run)
{
	bool is_queue_long = run->at_hand->batch.count == run->at_hand->asked;

	if (!is_queue_long || run->session_ms >= AHEAD_SESSION_MS || !smtp_send_is_well(run->deliver->smtp))
		return 0;
	return run->max < AHEAD_MAX ? run->max : AHEAD_MAX;
}

/* Sends what is at hand while the database settles what was sent before it and claims what comes after it. */
static enum result send_some(struct run *run)
{
	struct claim *claim = other(run);
	size_t ahead = count_ahead(run);
	bool is_needed = claim->batch.count > 0 || ahead > 0;
	enum result begun = is_needed ? exchange_begin(run, claim, ahead) : RESULT_OK;
	enum result result = RESULT_OK;

	send_all(run);
	if (is_needed)
		result = exchange_end(run, claim, begun);
	run->at_hand = claim;
	return result;
}

/* Claims and sends. RESULT_OK: there may be more at once. */
static enum result deliver_some(struct run *run)
{
	enum result result = RESULT_OK;

	/* The lease of what was claimed ahead must leave time for it. */
	if (clock_boot_ms() > run->at_hand->start_ms + run->at_hand->lease_ms / 4)
		settle(run, &run->at_hand->batch);
	if (run->at_hand->batch.count == 0)
		result = claim_some(run);
	return result == RESULT_OK ? send_some(run) : result;
}

static bool allocate(struct run *run)
{
	run->loop = loop_new();
	if (run->loop != NULL)
		run->outbox = outbox_new(run->loop, run->deliver->settings->database_url, run->deliver->keys);
	run->job = calloc(run->max, sizeof(*run->job));
	run->mail_of = calloc(run->max, sizeof(*run->mail_of));
	run->text = malloc(MESSAGE_BYTES);
	for (size_t i = 0; i < 2; i++) {
		run->claim[i].batch.size = run->max;
		run->claim[i].batch.mails = calloc(run->max, sizeof(*run->claim[i].batch.mails));
	}
	run->at_hand = &run->claim[0];
	return run->outbox != NULL && run->job != NULL && run->mail_of != NULL && run->text != NULL &&
	       run->claim[0].batch.mails != NULL && run->claim[1].batch.mails != NULL;
}

static void release(struct run *run)
{
	outbox_free(run->outbox);
	loop_free(run->loop);
	free(run->job);
	free((void *)run->mail_of);
	free(run->text);
	for (size_t i = 0; i < 2; i++)
		free(run->claim[i].batch.mails);
}

int deliver_run(const struct deliver *deliver)
{
	size_t session = (size_t)deliver->settings->messages_per_session;
	struct run run = {.deliver = deliver,
			  .max = session < CLAIM_MAX / CLAIM_SESSIONS ? session * CLAIM_SESSIONS
				 : session < CLAIM_MAX                ? CLAIM_MAX
								      : session};
	int status = EXIT_FAILURE;

	if (!allocate(&run)) {
		log_event(LOG_ERROR, "start_failed", LOG_TEXT("reason", "out of memory"));
		goto out;
	}
	while (!is_ending(&run) && run.sent < RENEW_AFTER) {
		enum result result = deliver_some(&run);
		uint64_t pause_ms = smtp_send_wait_ms(deliver->smtp);

		if (result == RESULT_LIMITED) {
			outbox_wait(run.outbox, POLL_MS);
		} else if (result != RESULT_OK || pause_ms > 0) {
			settle_all(&run);
			loop_sleep(run.loop, pause_ms > 0 ? (int)pause_ms : POLL_MS);
		}
	}
	settle_all(&run);
	status = loop_is_stopping(run.loop) ? EXIT_SUCCESS : DELIVER_RENEW;
out:
	release(&run);
	return status;
}
