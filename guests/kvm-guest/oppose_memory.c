// SPDX-License-Identifier: GPL-2.0-only
/* What the owner of a VM does to its memory, against aging. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kernel-page-flags.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pagemap.h"
#include "race.h"
#include "reply.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25	/* since Linux 6.1 */
#endif

#define SPLIT "/sys/kernel/debug/split_huge_pages"
/* To swap out is slow: no more pages at once. */
#define MOST_PAGED_OUT 12
#define HUGE_PAGES (HUGE_PAGE_SIZE >> GUEST_PAGE_SHIFT)
/* How often a split or a collapse is tried that somebody who holds the pages prevents. */
#define TRIES 16
/* So long whoever holds them may run to let go of them, in microseconds. */
#define PAUSE 1000

int oppose_by_drop(struct race *race, uint32_t first, uint32_t count)
{
	race_drop(race, first, count, true);
	return 0;
}

/* Of those pages, how many were there and no longer are. Frees both. */
static uint32_t count_gone(uint64_t *before, uint64_t *after, uint32_t first, uint32_t count)
{
	uint32_t gone = 0;

	for (uint32_t page = first; page < first + count; page++)
		gone += before[page] != PFN_NONE && after[page] == PFN_NONE;
	free(before);
	free(after);
	return gone;
}

/* The kernel says nothing of pages that it kept, so the page table is asked. */
int oppose_by_pageout(struct race *race, uint32_t first, uint32_t count)
{
	uint32_t fewer = count < MOST_PAGED_OUT ? count : MOST_PAGED_OUT;
	char *start = vm_page(race->vm, first);
	uint64_t *before = pagemap_read(race->vm);
	int result;

	race_begin(race, RACE_ACT, first, fewer);
	result = madvise(start, (size_t)fewer << GUEST_PAGE_SHIFT, MADV_PAGEOUT);
	race_end(race, first, fewer);
	race->counts.paged_out += count_gone(before, pagemap_read(race->vm), first, fewer);
	return result ? reply_errno("madvise(MADV_PAGEOUT)") : 0;
}

/* A large range keeps the MMU lock for longer. */
int oppose_by_unmap(struct race *race, uint32_t first, uint32_t count)
{
	if (count > MOST_PAGED_OUT || race_random(race, 4))
		return oppose_by_drop(race, first, count);
	return oppose_by_pageout(race, first, count);
}

static bool is_huge(uint64_t pfn)
{
	uint64_t bits = pfn == PFN_NONE ? 0 : page_flags(pfn);

	return bits & 1ULL << KPF_THP && !(bits & 1ULL << KPF_ZERO_PAGE);
}

/* Ranges of the size of a huge page, by what is at their beginning. */
struct ranges {
	uint32_t huge;
	uint32_t small;
};

static struct ranges count_ranges(const struct vm *vm)
{
	uint64_t *pfns = pagemap_read(vm);
	struct ranges found = { 0 };

	page_flags_refresh();
	for (uint32_t page = 0; page < vm->pages; page += HUGE_PAGES) {
		found.huge += is_huge(pfns[page]);
		found.small += pfns[page] != PFN_NONE && !is_huge(pfns[page]);
	}
	free(pfns);
	return found;
}

/* Reclaim may have been at them meanwhile. */
static uint32_t rise(uint32_t before, uint32_t after)
{
	return after > before ? after - before : 0;
}

static int split(struct race *race)
{
	uintptr_t start = (uintptr_t)race->vm->slot;
	uintptr_t end = start + ((uintptr_t)race->vm->pages << GUEST_PAGE_SHIFT);
	int fd = open(SPLIT, O_WRONLY | O_CLOEXEC), result;
	char text[64];
	int size = snprintf(text, sizeof(text), "%d,0x%lx,0x%lx", getpid(), start, end);

	if (fd < 0)
		return reply_errno("open of " SPLIT);
	race_begin(race, RACE_ACT, 0, race->vm->pages);
	result = write(fd, text, size);
	race_end(race, 0, race->vm->pages);
	close(fd);
	/* Pages that somebody holds at the moment cannot be split; the others are. */
	return result < 0 && errno != EAGAIN ? reply_errno("write to " SPLIT) : 0;
}

/*
 * Who ages a huge page by page_idle holds it, and so keeps it from being split: the
 * kernel unmaps it, finds that out, and maps it again. What is huge still is split
 * once the agers rest and had the time to let go.
 */
static int split_all(struct race *race)
{
	struct ranges before = count_ranges(race->vm), after = before;

	for (int tries = 0; after.huge && tries < TRIES; tries++) {
		if (tries)
			usleep(PAUSE);
		if (split(race))
			return -1;
		agers_rest(&race->agers);
		after = count_ranges(race->vm);
	}
	race->counts.split += rise(before.small, after.small);
	return 0;
}

/*
 * Nothing else makes huge pages: a vCPU reads before it writes, gets the huge page
 * of zeroes, and of that the kernel copies what is written to by small pages. Who
 * has a page at the moment prevents this as well.
 */
static void join_all(struct race *race)
{
	size_t size = (size_t)race->vm->pages << GUEST_PAGE_SHIFT;
	uint32_t ranges = race->vm->pages / HUGE_PAGES;
	struct ranges before = count_ranges(race->vm), after = before;

	for (int tries = 0; after.huge < ranges && tries < TRIES; tries++) {
		if (tries)
			usleep(PAUSE);
		for (size_t at = 0; at < size; at += HUGE_PAGE_SIZE)
			madvise(race->vm->slot + at, HUGE_PAGE_SIZE, MADV_COLLAPSE);
		after = count_ranges(race->vm);
	}
	race->counts.collapsed += rise(before.huge, after.huge);
}

/* Splits huge pages and joins them again; at first there are none. */
int oppose_by_split(struct race *race, uint32_t first, uint32_t count)
{
	(void)first;
	(void)count;
	if (split_all(race))
		return -1;
	agers_rest(&race->agers);
	join_all(race);
	return 0;
}
