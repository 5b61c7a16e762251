/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef NOW_H
#define NOW_H

#include <time.h>

/* Seconds of a clock that nobody sets. */
static inline double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

#endif
