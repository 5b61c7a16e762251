/* SPDX-License-Identifier: GPL-2.0-only */
/* Which accesses of a vCPU were made for it: the latest that follow each other, by their numbers. */
#ifndef ROW_H
#define ROW_H

#include <stdbool.h>
#include <stdint.h>

struct row {
	uint64_t first;
	uint64_t last;
};

/* The access of that number was made; numbers rise. */
static inline void row_extend(struct row *row, uint64_t number)
{
	if (number != row->last + 1)
		__atomic_store_n(&row->first, number, __ATOMIC_SEQ_CST);
	__atomic_store_n(&row->last, number, __ATOMIC_SEQ_CST);
}

/* What it is now, for another thread: a gap that it just came to counts as one. */
static inline struct row row_read(const struct row *row)
{
	struct row now;

	now.last = __atomic_load_n(&row->last, __ATOMIC_SEQ_CST);
	now.first = __atomic_load_n(&row->first, __ATOMIC_SEQ_CST);
	return now;
}

/* Whether all of the accesses after @before up to @ended are in it. */
static inline bool row_covers(struct row row, uint64_t before, uint64_t ended)
{
	return ended <= before || (row.first <= before + 1 && row.last >= ended);
}

#endif
