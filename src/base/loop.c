/* loop.c: one epoll loop: descriptors with handlers, the clock of the round, and the signals that stop a program. */
#include "base/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define EVENTS_MAX 256
#define TIMEOUT_MAX_MS 60000

struct loop {
	int epoll;
	int stop_count;
	bool is_hung_up;
	uint64_t now_ms;
	struct loop_watch signals;
};

static void read_signals(struct loop *loop)
{
	struct signalfd_siginfo signal;

	while (read(loop->signals.fd, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
		/* SIGHUP is no request to stop: it asks for the files to be read anew. */
		if (signal.ssi_signo == SIGTERM || signal.ssi_signo == SIGINT)
			loop->stop_count++;
		if (signal.ssi_signo == SIGHUP)
			loop->is_hung_up = true;
	}
}

static void on_signal(void *context, bool readable, bool writable)
{
	(void)readable;
	(void)writable;
	read_signals(context);
}

struct loop *loop_new(void)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	sigset_t mask;

	if (loop == NULL)
		return NULL;
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	loop->signals =
	    (struct loop_watch){signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC), .handler = on_signal, .context = loop};
	loop->now_ms = clock_ms();
	if (loop->epoll < 0 || loop->signals.fd < 0 || loop_add(loop, &loop->signals) != RESULT_OK) {
		loop_free(loop);
		return NULL;
	}
	return loop;
}

void loop_free(struct loop *loop)
{
	if (loop == NULL)
		return;
	if (loop->signals.fd >= 0)
		close(loop->signals.fd);
	if (loop->epoll >= 0)
		close(loop->epoll);
	free(loop);
}

static enum result control(struct loop *loop, struct loop_watch *watch, int operation, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = watch};

	if (epoll_ctl(loop->epoll, operation, watch->fd, &event) == 0)
		return RESULT_OK;
	log_event(LOG_ERROR, "epoll_failed", LOG_NUMBER("errno", errno));
	return RESULT_FAULT;
}

enum result loop_add(struct loop *loop, struct loop_watch *watch)
{
	return control(loop, watch, EPOLL_CTL_ADD, EPOLLIN);
}

enum result loop_want_write(struct loop *loop, struct loop_watch *watch, bool wanted)
{
	return control(loop, watch, EPOLL_CTL_MOD, wanted ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void loop_remove(struct loop *loop, struct loop_watch *watch)
{
	if (watch->fd >= 0)
		epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->fd = -1;
}

int loop_round(struct loop *loop, int timeout_ms)
{
	struct epoll_event events[EVENTS_MAX];
	int count = epoll_wait(loop->epoll, events, EVENTS_MAX, timeout_ms);

	loop->now_ms = clock_ms();
	for (int i = 0; i < count; i++) {
		struct loop_watch *watch = events[i].data.ptr;
		uint32_t seen = events[i].events;

		if (watch->fd >= 0)
			watch->handler(watch->context, (seen & ~(uint32_t)EPOLLOUT) != 0, (seen & EPOLLOUT) != 0);
	}
	return count > 0 ? count : 0;
}

void loop_sleep(struct loop *loop, int ms)
{
	uint64_t until_ms = clock_ms() + (uint64_t)ms;

	loop->now_ms = clock_ms();
	while (loop->now_ms < until_ms && loop->stop_count == 0)
		(void)loop_round(loop, loop_timeout_ms(loop, until_ms));
}

uint64_t loop_now_ms(const struct loop *loop)
{
	return loop->now_ms;
}

int loop_timeout_ms(const struct loop *loop, uint64_t until_ms)
{
	if (until_ms == UINT64_MAX)
		return -1;
	if (until_ms <= loop->now_ms)
		return 0;
	return until_ms - loop->now_ms < TIMEOUT_MAX_MS ? (int)(until_ms - loop->now_ms) : TIMEOUT_MAX_MS;
}

int loop_stop_count(const struct loop *loop)
{
	return loop->stop_count;
}

bool loop_take_hangup(struct loop *loop)
{
	bool is_hung_up = loop->is_hung_up;

	loop->is_hung_up = false;
	return is_hung_up;
}

bool loop_is_stopping(struct loop *loop)
{
	read_signals(loop);
	return loop->stop_count > 0;
}
