// SPDX-License-Identifier: GPL-2.0-only
#include "wait.h"

#include <time.h>

#include "reply.h"

#define PATIENCE_MS 10000

void wait_a_ms(int *waited, const char *what)
{
	static const struct timespec ms = { .tv_nsec = 1000000 };

	if (++*waited > PATIENCE_MS)
		die("%s did not come to an end in time", what);
	nanosleep(&ms, NULL);
}
