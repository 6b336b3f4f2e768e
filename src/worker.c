/* worker.c: otp-worker: delivers the queued mails in child processes, and sweeps away what has expired on a schedule.

   The parent holds no connection to a relay and sends nothing: it starts the delivery processes, starts one anew that
   has ended, and runs the sweep itself. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "base/secret.h"
#include "db/db.h"
#include "mail/deliver.h"
#include "mail/message.h"
#include "mail/outbox.h"
#include "mail/smtp_send.h"

#define EXIT_USAGE 2
#define SESSIONS_MAX 32
#define RESTART_FIRST_MS 1000U
#define RESTART_LAST_MS 30000U
#define HEALTHY_MS 60000U      /* a process that lived so long is started anew at once */
#define STOP_GRACE_MS 10000U   /* then a connection that a delivery process waits on is cut */
#define SWEEP_PAUSE_MS 20      /* between full batches: back to back they slow requests down */
#define SWEEP_QUOTA_BLOCKS 256 /* of 8 KiB, per sweep */
#define FREED_BYTE 0x5A

/* A delivery process. */
struct child {
	pid_t pid; /* 0: none */
	uint64_t started_ms;
	uint64_t restart_ms; /* not before */
	uint64_t backoff_ms;
};

struct worker {
	struct config config;
	struct secret secret;
	struct deliver deliver;
	struct child child[SESSIONS_MAX];
	struct outbox *outbox; /* for the sweep */
	struct outbox_sweep sweep;
	uint64_t sweep_ms; /* the next one */
	sigset_t signals;  /* blocked, and taken one by one */
	bool is_stopping;
};

/* --- Start --- */

static bool make_deliver(struct worker *worker)
{
	const struct config *config = &worker->config;
	const struct message_settings settings = {.app_name = config->app_name,
						  .subject = config->email_subject,
						  .from = config->email_from,
						  .template_dir = config->template_dir};
	struct deliver *deliver = &worker->deliver;

	deliver->config = config;
	deliver->secret = &worker->secret;
	return message_composer_new(&deliver->composer, &settings) == RESULT_OK &&
	       smtp_send_new(&deliver->mail, config, message_sender(deliver->composer)) == RESULT_OK;
}

/* Settings, keys, templates, relays: everything that --check looks at. */
static bool prepare(struct worker *worker)
{
	struct config *config = &worker->config;

	log_start(config_program_name(PROGRAM_WORKER), LOG_INFO);
	if (secret_start() != RESULT_OK || config_read(config, PROGRAM_WORKER) != RESULT_OK)
		return false;
	log_start(config_program_name(PROGRAM_WORKER), config->log_level);
	return db_check(config->database_url) == RESULT_OK &&
	       secret_load(&worker->secret, PROGRAM_WORKER, config->key_dir) == RESULT_OK && make_deliver(worker);
}

/* All but the outbox, which is the parent's. */
static void release(struct worker *worker)
{
	smtp_send_free(worker->deliver.mail);
	message_composer_free(worker->deliver.composer);
	secret_wipe(&worker->secret);
}

static void block_signals(struct worker *worker)
{
	(void)sigemptyset(&worker->signals);
	(void)sigaddset(&worker->signals, SIGTERM);
	(void)sigaddset(&worker->signals, SIGINT);
	(void)sigaddset(&worker->signals, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &worker->signals, NULL);
	(void)signal(SIGHUP, SIG_IGN);
}

/* --- Delivery processes --- */

/* In the child. The parent's connection is closed as a descriptor only: a farewell would end the parent's session. */
static int run_child(struct worker *worker, pid_t parent)
{
	(void)close_range(STDERR_FILENO + 1, ~0U, 0);
	if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != parent)
		return EXIT_FAILURE;
	return deliver_run(&worker->deliver);
}

static void start_child(struct worker *worker, struct child *child)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	child->started_ms = clock_boot_ms();
	child->restart_ms = child->started_ms + RESTART_FIRST_MS;
	if (pid < 0)
		log_event(LOG_ERROR, "fork_failed", LOG_TEXT("reason", strerror(errno)));
	if (pid > 0)
		child->pid = pid;
	if (pid == 0) {
		int status = run_child(worker, parent);

		release(worker);
		exit(status);
	}
}

static void start_children(struct worker *worker)
{
	uint64_t now = clock_boot_ms();

	for (int i = 0; i < worker->config.worker_sessions; i++)
		if (worker->child[i].pid == 0 && now >= worker->child[i].restart_ms)
			start_child(worker, &worker->child[i]);
}

/* A delivery process has ended: its leases end by themselves, its place is filled again, later and later if it
   keeps dying. */
static void note_end(struct worker *worker, struct child *child, int status)
{
	uint64_t now = clock_boot_ms();

	child->pid = 0;
	if (worker->is_stopping)
		return;
	if (now - child->started_ms >= HEALTHY_MS || child->backoff_ms == 0)
		child->backoff_ms = RESTART_FIRST_MS;
	else if (child->backoff_ms < RESTART_LAST_MS)
		child->backoff_ms *= 2;
	child->restart_ms = now + (now - child->started_ms >= HEALTHY_MS ? 0 : child->backoff_ms);
	log_event(LOG_ERROR, "delivery_process_ended", LOG_NUMBER("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0),
		  LOG_NUMBER("status", WIFEXITED(status) ? WEXITSTATUS(status) : 0),
		  LOG_NUMBER("restart_ms", (long long)(child->restart_ms - now)));
}

static void reap(struct worker *worker)
{
	int status = 0;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < SESSIONS_MAX; i++)
			if (worker->child[i].pid == pid)
				note_end(worker, &worker->child[i], status);
}

static int signal_children(const struct worker *worker, int number)
{
	int alive = 0;

	for (int i = 0; i < SESSIONS_MAX; i++) {
		if (worker->child[i].pid == 0)
			continue;
		(void)kill(worker->child[i].pid, number);
		alive++;
	}
	return alive;
}

/* Takes one signal, waiting up to timeout_ms for it. */
static void take_signal(struct worker *worker, uint64_t timeout_ms)
{
	struct timespec timeout = {.tv_sec = (time_t)(timeout_ms / 1000),
				   .tv_nsec = (long)(timeout_ms % 1000) * 1000000};
	int number = sigtimedwait(&worker->signals, NULL, &timeout);

	if (number == SIGCHLD)
		reap(worker);
	else if (number > 0)
		worker->is_stopping = true;
}

/* Lets the delivery processes finish the mail at hand. One that waits for its relay too long has its connection cut
   (mail.c takes SIGALRM so) and then settles. */
static void stop_children(struct worker *worker)
{
	uint64_t cut_ms = clock_boot_ms() + STOP_GRACE_MS;
	int alive = signal_children(worker, SIGTERM);

	while (alive > 0) {
		take_signal(worker, 500);
		alive = signal_children(worker, clock_boot_ms() >= cut_ms ? SIGALRM : 0);
	}
}

/* --- The sweep --- */

/* Deletes what has expired, batch after batch. Whatever goes wrong, the next sweep begins anew. */
static void sweep(struct worker *worker)
{
	const struct config *config = &worker->config;
	bool ended = false;
	enum result result = outbox_connect(worker->outbox);

	memset(worker->sweep.after, 0, sizeof worker->sweep.after);
	worker->sweep.deleted = 0;
	worker->sweep.quota_deleted = 0;
	while (result == RESULT_OK && !ended && !worker->is_stopping) {
		result = outbox_sweep(worker->outbox, &worker->sweep, config->retention_hours * 3600,
				      config->expire_minutes * 60, config->sweep_batch, &ended);
		if (result == RESULT_OK && !ended) {
			take_signal(worker, SWEEP_PAUSE_MS);
			start_children(worker);
		}
	}
	if (result == RESULT_OK && !worker->is_stopping)
		result = outbox_sweep_quota(worker->outbox, &worker->sweep, SWEEP_QUOTA_BLOCKS);
	log_event(result != RESULT_OK                                       ? LOG_WARNING
		  : worker->sweep.deleted + worker->sweep.quota_deleted > 0 ? LOG_INFO
									    : LOG_DEBUG,
		  "sweep", LOG_TEXT("result", result_name(result)),
		  LOG_NUMBER("deleted", (long long)worker->sweep.deleted),
		  LOG_NUMBER("quota_deleted", (long long)worker->sweep.quota_deleted));
	worker->sweep_ms = clock_boot_ms() + (uint64_t)config->sweep_seconds * 1000;
}

/* How long the parent may sleep: until the next sweep or restart. */
static uint64_t patience_ms(const struct worker *worker)
{
	uint64_t now = clock_boot_ms();
	uint64_t next = worker->sweep_ms;

	for (int i = 0; i < worker->config.worker_sessions; i++)
		if (worker->child[i].pid == 0 && worker->child[i].restart_ms < next)
			next = worker->child[i].restart_ms;
	return next > now ? next - now : 0;
}

static int run(struct worker *worker)
{
	block_signals(worker);
	start_children(worker);
	worker->outbox = outbox_new(worker->config.database_url, &worker->secret.mail_open);
	if (worker->outbox == NULL) {
		stop_children(worker);
		return EXIT_FAILURE;
	}
	log_event(LOG_INFO, "started", LOG_NUMBER("sessions", worker->config.worker_sessions));
	worker->sweep_ms = clock_boot_ms() + (uint64_t)worker->config.sweep_seconds * 1000;
	while (!worker->is_stopping) {
		start_children(worker);
		if (clock_boot_ms() >= worker->sweep_ms)
			sweep(worker);
		else
			take_signal(worker, patience_ms(worker));
	}
	stop_children(worker);
	outbox_free(worker->outbox);
	log_event(LOG_INFO, "stopped", LOG_NUMBER("sessions", worker->config.worker_sessions));
	return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
	static struct worker worker;
	enum config_action action = config_arguments(PROGRAM_WORKER, argc, argv);
	int status = EXIT_USAGE;

	if (action == CONFIG_EXIT_OK)
		return EXIT_SUCCESS;
	if (action == CONFIG_EXIT_USAGE)
		return EXIT_USAGE;
	/* Codes pass through buffers of libesmtp and libpq; what is freed is overwritten. */
	(void)mallopt(M_PERTURB, FREED_BYTE);
	if (prepare(&worker))
		status = action == CONFIG_CHECK ? EXIT_SUCCESS : run(&worker);
	release(&worker);
	return status;
}
