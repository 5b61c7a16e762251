/* SPDX-License-Identifier: GPL-2.0-only */
/* Threads of kvm-guest that have a CPU and a priority. */
#ifndef THREADS_H
#define THREADS_H

#include <pthread.h>

/* Binds a thread to a CPU; -1 with errno. */
int bind_to_cpu(pthread_t thread, unsigned int cpu);

/* Gives a thread a real-time priority, or none (0); -1 with errno. */
int set_priority(pthread_t thread, int priority);

/* Starts a thread that has both; @what names it if that fails, which ends the program. */
pthread_t start_on_cpu(void *(*run)(void *), void *argument, unsigned int cpu, int priority,
		       const char *what);

/* Waits for the end of a thread. */
void join(pthread_t thread);

#endif
