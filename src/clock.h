/* clock.h: the clock that durations are measured by. */
#ifndef OTP_CLOCK_H
#define OTP_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in ms: no change of the date moves it. */
uint64_t clock_ms(void);

#endif
