/* SPDX-License-Identifier: GPL-2.0-only */
/* Threads that age a range of tested pages by page_idle while other things happen to it. */
#ifndef AGER_H
#define AGER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "vm.h"

#define MAX_AGERS 8

struct ager {
	struct agers *all;
	pthread_t thread;
	uint64_t passes;	/* over the ranges that it was sent to */
	uint64_t begun;		/* the last one that it has begun to age */
	uint64_t sent;		/* the last one that it has passed over */
	int error;		/* errno, 0 for none */
	const char *what;	/* what failed */
};

struct agers {
	const struct vm *vm;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint32_t first;
	uint32_t count;		/* 0 while there is nothing to do */
	bool again;		/* the first ager goes on */
	uint64_t sent;		/* counts the ranges */
	bool stop;
	uint32_t number;
	struct ager each[MAX_AGERS];
};

/*
 * Starts them, spread over @cpus CPUs, with a real-time priority: they must not
 * wait for the vCPUs' time slices. Fatal on failure.
 */
void agers_start(struct agers *agers, const struct vm *vm, uint32_t number, unsigned int cpus);

/*
 * Has all of them age a range of pages, and waits until each has done so once.
 * With @again the first one does so over and over, and is waited for only until
 * it begins: once aged, an entry is not stored to again. Returns 0, or -1 with
 * the reply if one failed.
 */
int agers_send(struct agers *agers, uint32_t first, uint32_t count, bool again);

/* Lets the first one rest too. */
void agers_rest(struct agers *agers);

/* Ends them; returns their passes together. */
uint64_t agers_stop(struct agers *agers);

/* Binds a thread to a CPU; -1 with errno. */
int bind_to_cpu(pthread_t thread, unsigned int cpu);

/* Gives a thread a real-time priority, or none (0); -1 with errno. */
int set_priority(pthread_t thread, int priority);

#endif
