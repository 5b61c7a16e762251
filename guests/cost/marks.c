// SPDX-License-Identifier: GPL-2.0-only
/* See Documentation/admin-guide/mm/idle_page_tracking.rst. */
#include "marks.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "pagemap.h"
#include "reply.h"

#define BITMAP "/sys/kernel/mm/page_idle/bitmap"
#define WORD_BITS 64

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static void add(struct marks *marks, uint64_t pfn)
{
	struct marks_run *run = marks->count ? &marks->runs[marks->count - 1] : NULL;
	uint64_t word = pfn / WORD_BITS;

	if (!run || word > run->first + run->words || word >= run->first + MARKS_AT_ONCE) {
		run = &marks->runs[marks->count++];
		*run = (struct marks_run){ .first = word };
	}
	run->words = word - run->first + 1;
	run->bits[run->words - 1] |= 1ULL << pfn % WORD_BITS;
}

void marks_find(struct marks *marks, const struct vm *vm)
{
	uint64_t *pfns = pagemap_read(vm);

	qsort(pfns, vm->pages, sizeof(*pfns), compare);
	marks->fd = open(BITMAP, O_WRONLY | O_CLOEXEC);
	marks->runs = calloc(vm->pages, sizeof(*marks->runs));
	marks->count = 0;
	if (marks->fd < 0 || !marks->runs)
		die_errno(BITMAP);
	for (uint32_t i = 0; i < vm->pages; i++) {
		if (pfns[i] == PFN_NONE)
			die("a tested page is not in memory");
		add(marks, pfns[i]);
	}
	free(pfns);
}

static void write_run(const struct marks *marks, const struct marks_run *run,
		      const uint64_t *bits)
{
	ssize_t size = run->words * sizeof(*bits);

	if (pwrite(marks->fd, bits, size, run->first * sizeof(*bits)) != size)
		die_errno(BITMAP);
}

void marks_set(const struct marks *marks)
{
	for (size_t i = 0; i < marks->count; i++)
		write_run(marks, &marks->runs[i], marks->runs[i].bits);
}

void marks_set_none(const struct marks *marks)
{
	static const uint64_t none[MARKS_AT_ONCE];

	for (size_t i = 0; i < marks->count; i++)
		write_run(marks, &marks->runs[i], none);
}

void marks_free(const struct marks *marks)
{
	close(marks->fd);
	free(marks->runs);
}
