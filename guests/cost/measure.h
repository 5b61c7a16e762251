/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is measured. Each of these is the whole life of a process, in a memcg of its own, with so
 * many tested pages of 4 KiB; each pass that it makes is a line: docs/cost.md has them.
 */
#ifndef MEASURE_H
#define MEASURE_H

#include <stdint.h>

/* Idle page tracking of the same memory without a guest: what is left of it is KVM's. */
void measure_bare(uint32_t pages);

/* Idle page tracking of a guest's memory, and the guest's accesses afterwards. */
void measure_idle(uint32_t pages);

/* MGLRU's walk, where it walks page tables. */
void measure_walk(uint32_t pages);

/* Reclaim of the pages, old ones, to zram. */
void measure_reclaim(uint32_t pages);

/* How often the MMU notifiers of aging are called meanwhile: a process that measures nothing. */
void count_calls(uint32_t pages);

#endif
