// SPDX-License-Identifier: GPL-2.0-only
/* What the owner of a VM does to its memory, against aging. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "race.h"
#include "reply.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25	/* since Linux 6.1 */
#endif

#define SPLIT "/sys/kernel/debug/split_huge_pages"
/* To swap out is slow: no more pages at once. */
#define MOST_PAGED_OUT 12

int oppose_by_drop(struct race *race, uint32_t first, uint32_t count)
{
	race_drop(race, first, count, true);
	return 0;
}

int oppose_by_pageout(struct race *race, uint32_t first, uint32_t count)
{
	uint32_t fewer = count < MOST_PAGED_OUT ? count : MOST_PAGED_OUT;
	char *start = race->vm->slot + ((size_t)first << GUEST_PAGE_SHIFT);
	int result;

	race_begin(race, first, fewer);
	result = madvise(start, (size_t)fewer << GUEST_PAGE_SHIFT, MADV_PAGEOUT);
	race_end(race, first, fewer);
	race->counts.paged_out += fewer;
	return result ? reply_errno("madvise(MADV_PAGEOUT)") : 0;
}

/* A large range keeps the MMU lock for longer. */
int oppose_by_unmap(struct race *race, uint32_t first, uint32_t count)
{
	if (count > MOST_PAGED_OUT || race_random(race, 4))
		return oppose_by_drop(race, first, count);
	return oppose_by_pageout(race, first, count);
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
	race_begin(race, 0, race->vm->pages);
	result = write(fd, text, size);
	race_end(race, 0, race->vm->pages);
	close(fd);
	/* Pages that somebody holds at the moment cannot be split; the others are. */
	return result < 0 && errno != EAGAIN ? reply_errno("write to " SPLIT) : 0;
}

/*
 * Splits huge pages and joins them again. That fails where somebody holds a page,
 * for swap as well; then other huge pages take their place.
 */
int oppose_by_split(struct race *race, uint32_t first, uint32_t count)
{
	size_t size = (size_t)race->vm->pages << GUEST_PAGE_SHIFT, at;

	(void)first;
	(void)count;
	if (split(race))
		return -1;
	agers_rest(&race->agers);
	for (at = 0; at < size; at += HUGE_PAGE_SIZE) {
		if (madvise(race->vm->slot + at, HUGE_PAGE_SIZE, MADV_COLLAPSE))
			break;
		race->counts.collapsed++;
	}
	if (at < size)
		race_drop(race, 0, race->vm->pages, false);
	return 0;
}
