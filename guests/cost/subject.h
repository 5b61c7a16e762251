/* SPDX-License-Identifier: GPL-2.0-only */
/* The memory that is aged, with a guest or without one, and how what was measured is told. */
#ifndef SUBJECT_H
#define SUBJECT_H

#include <stdint.h>

#include "vm.h"

/* The first differs from those after it: generations and caches are not there yet. */
#define PASSES 5

/* A guest that has written to the first of its pages, so many, which are on an LRU list. */
void subject_guest(struct vm *vm, uint32_t pages, uint32_t present);

/* Pages without a guest, all written to. */
void subject_bare(struct vm *vm, uint32_t pages);

/* Has the guest touch the first of its pages, so many. */
void subject_run(struct vm *vm, enum mailbox_command command, uint32_t pages);

/* New pages wait in batches before they are on an LRU list: this moves them there. */
void subject_drain(void);

/*
 * Returns when the timer's tick has just been there, so that none comes by in the next
 * milliseconds: it would be counted.
 */
void subject_await_tick(void);

/* The line of one pass. */
void subject_tell(const char *metric, uint32_t pages, int pass, uint64_t units, uint64_t count);

#endif
