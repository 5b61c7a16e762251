/* SPDX-License-Identifier: GPL-2.0-only */
/* Threads that age the tested pages while other things happen to them. */
#ifndef AGER_H
#define AGER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "lru_gen.h"
#include "vm.h"

#define MAX_AGERS 8

/* By what they age. Only page_idle keeps to a range; the others age all of our memcg. */
enum ager_kind {
	AGER_PAGE_IDLE,
	AGER_WALK,		/* MGLRU's walk of page tables */
	AGER_EVICTION,		/* MGLRU's, which asks for each page before it goes */
};

struct ager {
	struct agers *all;
	pthread_t thread;
	struct lru_gen lru_gen;	/* not for page_idle */
	uint64_t passes;	/* over the ranges that it was sent to */
	uint64_t begun;		/* the last one that it has begun to age */
	uint64_t sent;		/* the last one that it has passed over */
	int error;		/* errno, 0 for none */
	const char *what;	/* what failed */
};

struct agers {
	const struct vm *vm;
	enum ager_kind kind;
	int nice;		/* of the threads, set before they start */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint32_t first;
	uint32_t count;		/* 0 while there is nothing to do */
	uint32_t again;		/* so many, from the first on, go on */
	uint64_t sent;		/* counts the ranges */
	bool stop;
	uint32_t number;
	uint32_t lasting;	/* so many can go on while the leader acts */
	struct ager each[MAX_AGERS];
};

/* The kind of that name; false if there is none. */
bool ager_parse(const char *name, enum ager_kind *kind);

/*
 * Starts them, spread over so many @cpus, with a real-time @priority if it is not 0:
 * they do not wait for the vCPUs' time slices then. The first CPU is that of the
 * thread that leads: on each of the others one ager is @lasting. Returns 0, or -1
 * with the reply if this machine cannot age so; fatal on other failures.
 */
int agers_start(struct agers *agers, const struct vm *vm, enum ager_kind kind, uint32_t number,
		const unsigned int *cpus, unsigned int count, int priority);

/*
 * Has all of them age a range of pages, and waits until each has done so once. If
 * @again is not 0, so many of those that are lasting do so over and over, and all that
 * is waited for is that each of these begins: once aged, an entry is not stored to
 * again. Returns 0, or -1 with the reply if one failed.
 */
int agers_send(struct agers *agers, uint32_t first, uint32_t count, uint32_t again);

/* Lets those rest that go on. */
void agers_rest(struct agers *agers);

/* Ends them; returns their passes together. */
uint64_t agers_stop(struct agers *agers);

#endif
