/* SPDX-License-Identifier: GPL-2.0-only */
/* What a vCPU's loads may give. Freestanding: the payload uses it. */
#ifndef JUDGE_H
#define JUDGE_H

#include "layout.h"

/*
 * The sum of the values that were read so far, and of one more. Their order counts, or
 * wrong values cancel each other out: pages that one command wrote differ by the same
 * from what another wrote there, and a power of two of them may add up to zero.
 */
static inline uint64_t check_add(uint64_t check, uint64_t value)
{
	return (check ^ value) * 0x9e3779b97f4a7c15;
}

/*
 * In a race, what a load of the vCPU's own word may give.
 * Nobody else writes the word, so it holds what was written last, or zero if the
 * host has dropped the page since. @done was read before the load, @begun after
 * it. A drop surely came between write and load if it began later than the
 * write's count of begun ones and was done when the load began; it may have come
 * between them if it was not done before the write and had begun after the load.
 * Drops of one page follow each other. Returns 0 if all is well.
 */
static inline enum race_fault race_judge(const struct record *record, uint32_t done,
					 uint32_t begun, uint64_t got)
{
	if (got == record->value)
		return got && (int32_t)(done - record->begun) > 0 ? RACE_STALE : RACE_NONE;
	if (got)
		return RACE_WRONG;
	return begun == record->done ? RACE_LOST : RACE_NONE;
}

#endif
