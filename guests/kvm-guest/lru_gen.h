/* SPDX-License-Identifier: GPL-2.0-only */
/* Aging and eviction by MGLRU's debugfs file, of the memcg that this process is in. */
#ifndef LRU_GEN_H
#define LRU_GEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LRU_GEN_PATH 128

/* One for each thread: writes to one open file wait for each other. */
struct lru_gen {
	int fd;
	char memcg[LRU_GEN_PATH];	/* its path, as the file names it */
};

/* -1 with errno, ENOENT if the process is in no memcg but the root: that has others in it. */
int lru_gen_open(struct lru_gen *lru_gen);
void lru_gen_close(const struct lru_gen *lru_gen);

/*
 * Makes one more generation, by a walk of page tables where the machine has one
 * and by nothing else where it has not; then evicts @evict anonymous pages from
 * all but the two youngest, if that is not 0. Others may do so at the same time.
 * Returns 0, or -1 with errno: EOVERFLOW if the file is too long, or the memcg on too
 * many nodes, for all of it to be aged.
 */
int lru_gen_age(const struct lru_gen *lru_gen, uint32_t evict);

#endif
