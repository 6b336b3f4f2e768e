/* smtp_timer.h: cuts a connection that takes too long, while a library that knows no deadline works on it. */
#ifndef OTP_SMTP_TIMER_H
#define OTP_SMTP_TIMER_H

#include <stdint.h>

#include "base/result.h"

/* Takes SIGALRM, which another process may send to the same end. Before the first connection. RESULT_FAULT: refused. */
OTP_MUST_CHECK enum result smtp_timer_prepare(void);

/* This socket is the connection from now on, also while it is being made. */
void smtp_timer_watch(int socket);

/* It is cut after that time from now. */
void smtp_timer_set(uint64_t after_ms);

/* There is none any more. */
void smtp_timer_stop(void);

/* Cuts it now: nothing more is read or written, and whoever works on it ends. */
void smtp_timer_cut(void);

#endif
