/* SPDX-License-Identifier: GPL-2.0-only */
/* The kinds of host memory that the tested slot can be made of. */
#ifndef BACKING_H
#define BACKING_H

#include <stdbool.h>
#include <stddef.h>

#define HUGE_PAGE_SIZE (2UL << 20)
#define CONTIGUOUS_PAGE_SIZE (32UL << 20)
#define GIGANTIC_PAGE_SIZE (1UL << 30)

enum backing {
	BACKING_ANON,		/* anonymous, pages of 4 KiB */
	BACKING_THP,		/* anonymous, transparent huge pages of 2 MiB */
	BACKING_HUGETLB,	/* hugetlbfs pages of 2 MiB */
	BACKING_HUGETLBSHARED,	/* the same, of a file that is shared */
	BACKING_CONTIGUOUS,	/* of 32 MiB, 16 entries side by side; only from a pool, too */
	BACKING_GIGANTIC,	/* of 1 GiB, which only come from a pool */
	BACKING_MEMFD,		/* shared memory of memfd_create(2) */
	BACKING_MEMFDTHP,	/* the same, transparent huge pages of 2 MiB */
	BACKING_FILE,		/* a file, MAP_SHARED */
	BACKING_FILEPRIVATE,	/* a file, MAP_PRIVATE */
};

bool backing_parse(const char *name, enum backing *backing);
const char *backing_name(enum backing backing);
bool backing_is_huge(enum backing backing);
/* What its memory is made of, in bytes. */
size_t backing_page_size(enum backing backing);
bool backing_is_file(enum backing backing);
/* Whether madvise(MADV_DONTNEED) leaves the content where it is. */
bool backing_is_shared(enum backing backing);

/*
 * Memory of that kind, aligned to 2 MiB or to a larger page of its own, not yet populated;
 * fatal on failure. What is a file's is that of @path, which is made, or must be empty.
 */
void *backing_map(enum backing backing, size_t size, const char *path);
/* Nothing there becomes a huge page; fatal on failure. */
void backing_use_small_pages(void *memory, size_t size);

#endif
