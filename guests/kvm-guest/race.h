/* SPDX-License-Identifier: GPL-2.0-only */
/* A race under way, as its opponents see it. See "A race" in docs/guest-protocol.md. */
#ifndef RACE_H
#define RACE_H

#include <stdbool.h>
#include <stdint.h>

#include "ager.h"
#include "vm.h"

/*
 * One CPU less than there are vCPUs, so that there are more threads than CPUs, and those
 * meet each other. On two there is never a vCPU beside an ager and an opponent.
 */
#define FEWEST_RACE_CPUS 2U
#define MOST_RACE_CPUS 8U

struct race;

/* What happens to the tested pages while they are aged. */
struct opponent {
	const char *name;
	enum backing backing;
	/* The tested slot may be gone or read-only for a vCPU. */
	bool unruly;
	/*
	 * It waits for whoever is in KVM, such as a vCPU, which an ager that shares its
	 * CPU must not keep from getting out.
	 */
	bool waits;
	/* It waits for many touches while the agers go on, which leave the vCPUs their CPU. */
	bool shares;
	/* It needs race.copy. */
	bool copies;
	/* The slot's memory may be skewed. */
	bool skews;
	/* It is about all pages at once, so the agers are sent to all of them. */
	bool whole;
	/* It acts beside all agers that can go on, each time: for who measures it. */
	bool timed;
	/*
	 * Does it once, while the agers are at @count pages from @first on and the vCPUs
	 * run; returns 0, or -1 with the reply.
	 */
	int (*act)(struct race *race, uint32_t first, uint32_t count);
	/* Does the last of it, with the vCPUs still running; NULL if there is nothing to do. */
	int (*finish)(struct race *race);
};

/* What is counted in the reply, under these names. */
struct race_counts {
	uint64_t acts;		/* system calls of the opponent that were marked and timed */
	double seconds;		/* that these took together */
	double slowest;
	uint64_t dropped;	/* pages taken away by MADV_DONTNEED, with repetition */
	uint64_t paged_out;	/* that MADV_PAGEOUT took */
	uint64_t logged;	/* pages that the dirty log named */
	uint64_t vms;		/* that shared the pages, and ended */
	uint64_t split;		/* huge pages */
	uint64_t collapsed;	/* ranges that became huge pages again */
};

struct race {
	struct vm *vm;
	const struct opponent *opponent;
	struct drops *drops;
	struct agers agers;
	struct race_counts counts;
	unsigned int cpus;	/* how many it takes, and which */
	unsigned int cpu[MOST_RACE_CPUS];
	uint64_t random;
	double until;		/* of CLOCK_MONOTONIC, in seconds */
	double patience;	/* seconds without a touch that make a vCPU hung */
	int marker;		/* of the trace that records this, -1 if none does */
	double begun;		/* when the act that is marked began */
	uint64_t before[MAX_VCPUS];	/* touches that each vCPU made before it was let go last */
	uint64_t passes;	/* of all agers */

	/*
	 * The dirty log's opponent: a copy of the pages, as a migration makes one. It is
	 * there from the start, as to get memory may wait for a vCPU that an ager keeps
	 * from its CPU.
	 */
	char *copy;
	bool logging;

	/* Those of the slot: accesses emulated when each vCPU had last seen the slot come back. */
	bool settled;
	uint64_t emulated[MAX_VCPUS];
};

/* The opponent of that name, or NULL. */
const struct opponent *opponent_find(const char *name);

uint32_t race_random(struct race *race, uint32_t limit);

/* The same for a thread that has a @state of its own, which is not 0. */
uint32_t random_below(uint64_t *state, uint32_t limit);

/* What a mark in the trace says; reads of the dirty log are told from other acts. */
enum race_mark { RACE_END, RACE_ACT, RACE_READ_LOG };

/* Stand around a system call whose overlap with aging counts: both mark it in the trace. */
void race_begin(struct race *race, enum race_mark what, uint32_t first, uint32_t count);
void race_end(struct race *race, uint32_t first, uint32_t count);

/*
 * Drops pages' content, and lets the vCPUs know. Marked if it is what the race is about.
 * Other threads may do so at the same time, unmarked, if they drop other pages.
 */
void race_drop(struct race *race, uint32_t first, uint32_t count, bool marked);

/* The same, marked, of what --skew has before the slot and the first pages, all at once. */
void race_drop_with_skew(struct race *race, uint32_t count);

/* Waits until each vCPU has made so many touches more; 0, or -1 with the reply. */
int race_wait_touches(struct race *race, uint64_t touches);

/* Parks all vCPUs, and lets them go on; each returns 0, or -1 with the reply. */
int race_pause(struct race *race);
void race_resume(struct race *race);

/* Opponents: oppose_*.c. */
int oppose_by_unmap(struct race *race, uint32_t first, uint32_t count);
int oppose_by_drop(struct race *race, uint32_t first, uint32_t count);
int oppose_by_two_drops(struct race *race, uint32_t first, uint32_t count);
int oppose_by_pageout(struct race *race, uint32_t first, uint32_t count);
int oppose_by_split(struct race *race, uint32_t first, uint32_t count);
int oppose_by_log(struct race *race, uint32_t first, uint32_t count);
int oppose_by_log_end(struct race *race);
int oppose_by_delete(struct race *race, uint32_t first, uint32_t count);
int oppose_by_move(struct race *race, uint32_t first, uint32_t count);
int oppose_by_flags(struct race *race, uint32_t first, uint32_t count);
int oppose_by_unmapped_slot(struct race *race, uint32_t first, uint32_t count);
/* Judges what happened since the slot came back last. */
int oppose_by_slot_end(struct race *race);
int oppose_by_vm(struct race *race, uint32_t first, uint32_t count);

#endif
