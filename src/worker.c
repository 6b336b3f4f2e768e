/* worker.c: otp-worker: delivers the queued mails in child processes, and sweeps away what has expired on a schedule.

   The parent has no connection to a relay and sends nothing: it starts the delivery processes, starts one anew that has
   ended, and runs the sweep itself. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/loop.h"
#include "mail/composers.h"
#include "mail/deliver.h"
#include "mail/probe.h"
#include "mail/smtp_send.h"
#include "mail/sweep.h"
#include "program.h"

#define SESSIONS_MAX 32
#define RESTART_FIRST_MS 1000U
#define RESTART_LAST_MS 30000U
#define HEALTHY_MS 60000U    /* a process that lived so long is started anew at once */
#define STOP_GRACE_MS 10000U /* then a connection that a delivery process waits on is cut */
#define SWEEP_PAUSE_MS 20U   /* between two transactions of a sweep */

/* A delivery process. */
struct child {
	pid_t pid; /* 0: none */
	uint64_t started_ms;
	uint64_t restart_ms; /* not before */
	uint64_t backoff_ms;
};

struct worker {
	const struct settings *settings;
	struct deliver deliver;
	struct loop *loop;
	struct sweep *sweep;
	uint64_t sweep_ms; /* when it goes on, or begins */
	struct child child[SESSIONS_MAX];
	bool is_stopping;
};

/* --- Start --- */

/* Templates, relays, password: all that --check looks at beyond the common start. */
static bool prepare(void *context, struct program_given *given)
{
	const struct settings *settings = given->settings;
	struct worker *worker = context;
	struct deliver *deliver = &worker->deliver;

	worker->settings = settings;
	deliver->settings = settings;
	deliver->keys = &given->keys->mail_open;
	return composers_load(&deliver->composers, given->applications, settings) == RESULT_OK &&
	       smtp_send_new(&deliver->smtp, settings) == RESULT_OK;
}

static void release(struct worker *worker)
{
	smtp_send_free(worker->deliver.smtp);
	composers_free(worker->deliver.composers);
}

/* --- Delivery processes --- */

/* In the child. The parent's connections are closed as descriptors only: to end them properly would end the parent's
   sessions. */
static int run_child(struct worker *worker, pid_t parent)
{
	(void)close_range(STDERR_FILENO + 1, ~0U, 0);
	log_reopen();
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
	uint64_t now_ms = clock_boot_ms();

	for (int i = 0; i < worker->settings->worker_sessions; i++)
		if (worker->child[i].pid == 0 && now_ms >= worker->child[i].restart_ms)
			start_child(worker, &worker->child[i]);
}

/* A delivery process has ended: its leases end by themselves, its place is filled again, later and later if it
   keeps dying. */
static void note_end(struct worker *worker, struct child *child, int status)
{
	uint64_t now_ms = clock_boot_ms();
	bool was_healthy = now_ms - child->started_ms >= HEALTHY_MS;

	child->pid = 0;
	child->restart_ms = now_ms;
	if (worker->is_stopping || (WIFEXITED(status) && WEXITSTATUS(status) == DELIVER_RENEW))
		return;
	if (was_healthy || child->backoff_ms == 0)
		child->backoff_ms = RESTART_FIRST_MS;
	else if (child->backoff_ms < RESTART_LAST_MS)
		child->backoff_ms *= 2;
	child->restart_ms = now_ms + (was_healthy ? 0 : child->backoff_ms);
	log_event(LOG_ERROR, "delivery_process_ended", LOG_NUMBER("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0),
		  LOG_NUMBER("status", WIFEXITED(status) ? WEXITSTATUS(status) : 0),
		  LOG_NUMBER("restart_ms", (long long)(child->restart_ms - now_ms)));
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

/* Sends a signal (0: none) to every delivery process; how many there are. */
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

/* Lets the delivery processes finish the mail at hand. One that waits for its relay too long has its connection cut
   (smtp_session.c takes SIGALRM so) and then settles. */
static void stop_children(struct worker *worker)
{
	uint64_t cut_ms = clock_boot_ms() + STOP_GRACE_MS;
	int alive;

	worker->is_stopping = true;
	alive = signal_children(worker, SIGTERM);
	while (alive > 0) {
		(void)loop_round(worker->loop, 500);
		reap(worker);
		alive = signal_children(worker, clock_boot_ms() >= cut_ms ? SIGALRM : 0);
	}
}

/* --- The parent's round --- */

/* On SIGHUP: reads the applications and their texts anew. A delivery process ends between two mails and leaves its
   place to one with the new ones. If anything is wrong, which was complained of, all stays as it is. */
static void reload(struct worker *worker)
{
	struct deliver *deliver = &worker->deliver;
	struct applications *applications = NULL;
	struct composers *composers = NULL;

	if (applications_load(&applications, worker->settings, 0) == RESULT_OK &&
	    composers_load(&composers, applications, worker->settings) == RESULT_OK) {
		composers_free(deliver->composers);
		deliver->composers = composers;
		(void)signal_children(worker, SIGHUP);
		log_event(LOG_INFO, "applications_loaded",
			  LOG_NUMBER("applications", (long long)applications_count(applications)));
	}
	applications_free(applications);
}

static void sweep_when_due(struct worker *worker)
{
	uint64_t now_ms = clock_boot_ms();
	enum result result;

	if (now_ms < worker->sweep_ms)
		return;
	result = sweep_go_on(worker->sweep);
	if (result != RESULT_OK)
		sweep_begin(worker->sweep);
	worker->sweep_ms =
	    clock_boot_ms() + (result == RESULT_OK ? SWEEP_PAUSE_MS : (uint64_t)worker->settings->sweep_seconds * 1000);
}

/* How long the parent may wait: until the next sweep or restart. */
static int timeout_ms(const struct worker *worker)
{
	uint64_t now_ms = clock_boot_ms();
	uint64_t next_ms = worker->sweep_ms;

	for (int i = 0; i < worker->settings->worker_sessions; i++)
		if (worker->child[i].pid == 0 && worker->child[i].restart_ms < next_ms)
			next_ms = worker->child[i].restart_ms;
	return next_ms > now_ms ? (int)(next_ms - now_ms) : 0;
}

static bool open_worker(struct worker *worker)
{
	const struct settings *settings = worker->settings;
	const struct sweep_settings sweep = {.database_url = settings->database_url,
					     .retention_seconds = settings->retention_hours * 3600,
					     .batch = settings->sweep_batch};

	worker->loop = loop_new();
	if (worker->loop != NULL)
		worker->sweep = sweep_new(worker->loop, &sweep);
	worker->sweep_ms = clock_boot_ms() + (uint64_t)settings->sweep_seconds * 1000;
	return worker->sweep != NULL;
}

static int run(void *context, struct program_given *given)
{
	const struct settings *settings = given->settings;
	struct worker *worker = context;
	bool is_open = open_worker(worker);

	if (is_open)
		log_event(LOG_INFO, "started", LOG_NUMBER("sessions", settings->worker_sessions));
	else
		log_event(LOG_ERROR, "start_failed", LOG_TEXT("reason", "out of memory"));
	while (is_open && loop_stop_count(worker->loop) == 0) {
		start_children(worker);
		sweep_when_due(worker);
		(void)loop_round(worker->loop, timeout_ms(worker));
		if (loop_take_hangup(worker->loop))
			reload(worker);
		reap(worker);
	}
	if (is_open) {
		stop_children(worker);
		log_event(LOG_INFO, "stopped", LOG_NUMBER("sessions", settings->worker_sessions));
	}
	sweep_free(worker->sweep);
	loop_free(worker->loop);
	release(worker);
	return is_open ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --probe */
static int probe(void *context, struct program_given *given, const char *word)
{
	struct worker *worker = context;
	int status = probe_run(worker->deliver.smtp, worker->deliver.composers, given->settings->return_path, word);

	release(worker);
	return status;
}

int main(int argc, char **argv)
{
	static struct worker worker;
	const struct program_parts parts = {
	    .program = PROGRAM_WORKER, .context = &worker, .prepare = prepare, .option = probe, .run = run};

	return program_main(&parts, argc, argv);
}
