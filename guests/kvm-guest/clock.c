// SPDX-License-Identifier: GPL-2.0-only
/*
 * The time, for who wants to know how long a command takes: with "clock;...;clock"
 * nobody else has to run in between. The raw clock is not slewed by NTP.
 */
#include <inttypes.h>
#include <time.h>

#include "commands.h"
#include "reply.h"

int command_clock(struct vm *vm, char **words)
{
	struct timespec at;

	(void)vm;
	(void)words;
	if (clock_gettime(CLOCK_MONOTONIC_RAW, &at))
		return reply_errno("clock_gettime");
	reply_ok(" ns=%" PRIu64, (uint64_t)at.tv_sec * 1000000000 + at.tv_nsec);
	return 0;
}
