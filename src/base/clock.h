/* clock.h: the clocks that durations, leases and dates are measured by. */
#ifndef OTP_CLOCK_H
#define OTP_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in ms: no change of the date moves it. */
uint64_t clock_ms(void);

/* CLOCK_BOOTTIME in ms: as clock_ms, but it goes on while the machine sleeps, as a lease in the database does. */
uint64_t clock_boot_ms(void);

/* The date, in ms since 1970. */
int64_t clock_wall_ms(void);

#endif
