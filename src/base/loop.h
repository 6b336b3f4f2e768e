/* loop.h: one epoll loop: descriptors with handlers, the clock of the round, and the signals that stop a program. */
#ifndef OTP_LOOP_H
#define OTP_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/result.h"

struct loop;

typedef void loop_handler(void *context, bool readable, bool writable);

/* A descriptor under watch; owned by the caller, and in place until the end of the round in which it was removed (an
   event for it may be waiting; it is dropped). A hang-up or an error counts as readable. */
struct loop_watch {
	int fd; /* -1: not under watch */
	loop_handler *handler;
	void *context;
};

/* Blocks SIGTERM, SIGINT, SIGHUP and SIGCHLD: they end a wait, and arrive no other way. NULL: out of resources. */
struct loop *loop_new(void);
void loop_free(struct loop *loop);

OTP_MUST_CHECK enum result loop_add(struct loop *loop, struct loop_watch *watch);

/* Watches for room to write as well, or no longer. */
OTP_MUST_CHECK enum result loop_want_write(struct loop *loop, struct loop_watch *watch, bool wanted);

/* Must come before close(2) of the descriptor, unless somebody else has closed it already. */
void loop_remove(struct loop *loop, struct loop_watch *watch);

/* Waits up to timeout_ms (0: not at all; negative: for ever) and runs the handlers of one round; how many. */
int loop_round(struct loop *loop, int timeout_ms);

/* Runs rounds for so long, or until the program is to stop. */
void loop_sleep(struct loop *loop, int ms);

/* Monotonic, as of the start of this round's handlers. */
uint64_t loop_now_ms(const struct loop *loop);

/* How long a round may wait for a moment of that clock: 0 if it has passed, -1 if it is UINT64_MAX. */
int loop_timeout_ms(const struct loop *loop, uint64_t until_ms);

/* SIGTERM or SIGINT has come; how often. */
int loop_stop_count(const struct loop *loop);

/* SIGHUP has come since the last call. */
bool loop_take_hangup(struct loop *loop);

/* Whether the program is to stop, without a round: for whoever is busy elsewhere for long. */
bool loop_is_stopping(struct loop *loop);

#endif
