/* smtp_timer.c: cuts a connection that takes too long, while a library that knows no deadline works on it. */
#include "mail/smtp_timer.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define AGAIN_MS 1000

/* For the signal handler; -1: none. */
static volatile sig_atomic_t live_socket = -1;

void smtp_timer_cut(void)
{
	if (live_socket >= 0)
		(void)shutdown(live_socket, SHUT_RDWR);
}

static void on_alarm(int number)
{
	int saved = errno;

	(void)number;
	smtp_timer_cut();
	errno = saved;
}

enum result smtp_timer_prepare(void)
{
	/* No SA_RESTART: whoever waits for something else is to look again. */
	const struct sigaction action = {.sa_handler = on_alarm};

	return sigaction(SIGALRM, &action, NULL) == 0 ? RESULT_OK : RESULT_FAULT;
}

/* Fires after first_ms (0: never) and then every again_ms. */
static void set(uint64_t first_ms, uint64_t again_ms)
{
	struct itimerval timer = {.it_value = {(long)(first_ms / 1000), (long)(first_ms % 1000 * 1000)},
				  .it_interval = {(long)(again_ms / 1000), (long)(again_ms % 1000 * 1000)}};

	(void)setitimer(ITIMER_REAL, &timer, NULL);
}

void smtp_timer_watch(int socket)
{
	live_socket = socket;
}

void smtp_timer_set(uint64_t after_ms)
{
	set(after_ms > 0 ? after_ms : 1, AGAIN_MS);
}

void smtp_timer_stop(void)
{
	set(0, 0);
	live_socket = -1;
}
