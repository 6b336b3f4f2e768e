/* clock.c: the clocks that durations, leases and dates are measured by. */
#include "base/clock.h"

#include <time.h>

static int64_t read_ms(clockid_t clock)
{
	struct timespec now = {0};

	(void)clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

uint64_t clock_ms(void)
{
	return (uint64_t)read_ms(CLOCK_MONOTONIC);
}

uint64_t clock_boot_ms(void)
{
	return (uint64_t)read_ms(CLOCK_BOOTTIME);
}

int64_t clock_wall_ms(void)
{
	return read_ms(CLOCK_REALTIME);
}
