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

struct loop {
	int epoll;
	int stop_count;
	uint64_t now_ms;
	struct loop_watch signals;
};

static void on_signal(void *context, bool readable, bool writable)
{
	struct loop *loop = context;
	struct signalfd_siginfo signal;

	(void)readable;
	(void)writable;
	while (read(loop->signals.fd, &signal, sizeof(signal)) == (ssize_t)sizeof(signal)) {
		/* SIGHUP is no request to stop: a terminal that closes must not end a service. */
		if (signal.ssi_signo != SIGHUP)
			loop->stop_count++;
	}
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

void loop_round(struct loop *loop, int timeout_ms)
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
}

uint64_t loop_now_ms(const struct loop *loop)
{
	return loop->now_ms;
}

int loop_stop_count(const struct loop *loop)
{
	return loop->stop_count;
}
