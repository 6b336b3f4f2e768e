/* process.h: what every program does first to its own process, and the random source. */
#ifndef OTP_PROCESS_H
#define OTP_PROCESS_H

#include <stddef.h>

#include "base/result.h"

/* Prepares libsodium, has freed memory wiped, ignores SIGPIPE, forbids core dumps and ptrace. A second call does
 * no harm. */
OTP_MUST_CHECK enum result process_start(void);

/* Fills bytes from libsodium's generator; the signature that code.h and token.h take as their random source. */
void process_random(void *bytes, size_t count);

/* A random number below bound, unbiased. */
unsigned process_uniform(unsigned bound);

#endif
