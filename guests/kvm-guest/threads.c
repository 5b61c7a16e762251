// SPDX-License-Identifier: GPL-2.0-only
#include "threads.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>

#include "reply.h"

int bind_to_cpu(pthread_t thread, unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	errno = pthread_setaffinity_np(thread, sizeof(set), &set);
	return errno ? -1 : 0;
}

int set_priority(pthread_t thread, int priority)
{
	struct sched_param param = { .sched_priority = priority };

	errno = pthread_setschedparam(thread, priority ? SCHED_FIFO : SCHED_OTHER, &param);
	return errno ? -1 : 0;
}

pthread_t start_on_cpu(void *(*run)(void *), void *argument, unsigned int cpu, int priority,
		       const char *what)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, run, argument);
	if (errno || bind_to_cpu(thread, cpu) || set_priority(thread, priority))
		die_errno(what);
	return thread;
}

void join(pthread_t thread)
{
	errno = pthread_join(thread, NULL);
	if (errno)
		die_errno("pthread_join");
}
