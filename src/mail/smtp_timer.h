/* smtp_timer.h: cuts a connection that takes too long, while a library that knows no deadline works on it. */
#ifndef OTP_SMTP_TIMER_H
#define OTP_SMTP_TIMER_H

#include <stdint.h>

#include "base/result.h"

/* Takes SIGALRM, which another process may send to the same end. Before the first connection. RESULT_FAULT: refused. */
OTP_MUST_CHECK enum result smtp_timer_prepare(void);

/* Before connecting: connect() is interrupted after each_ms, and again for every further address. */
void smtp_timer_connecting(uint64_t each_ms);

/* This socket (-1: it could not be found) is the connection, and is cut after that time. */
void smtp_timer_connected(int socket, uint64_t after_ms);

/* It is cut after that time from now. */
void smtp_timer_set(uint64_t after_ms);

/* There is none any more. */
void smtp_timer_stop(void);

/* Cuts it now: nothing more is read or written, and the library ends the session. If the socket could not be found, the
   process ends: neither may a lease be overstepped nor a text go astray. */
void smtp_timer_cut(void);

#endif
