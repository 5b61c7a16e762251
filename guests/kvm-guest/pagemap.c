// SPDX-License-Identifier: GPL-2.0-only
#include "pagemap.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/kernel-page-flags.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "array_size.h"
#include "commands.h"
#include "ranges.h"
#include "reply.h"

/* Another file for who tests this. */
#ifndef PAGE_FLAGS
#define PAGE_FLAGS "/proc/kpageflags"
#endif

#define PM_PRESENT	(1ULL << 63)
#define PM_PFN		((1ULL << 55) - 1)

/*
 * Flags are read in blocks and kept, so that few are made twice for memory whose PFNs go
 * to and fro: the kernel takes long for each. A block has its place by its number. All of
 * them are five pages, since they may be charged to a memcg whose pages are counted.
 */
#define BLOCK_PAGES 64
#define BLOCKS 32

/* Without KPF_KSM, which Linux 6.12 sets for any anonymous page. */
static const struct {
	int bit;
	const char *name;
} flags[] = {
	{ KPF_LOCKED, "locked" },
	{ KPF_REFERENCED, "referenced" },
	{ KPF_UPTODATE, "uptodate" },
	{ KPF_DIRTY, "dirty" },
	{ KPF_LRU, "lru" },
	{ KPF_ACTIVE, "active" },
	{ KPF_WRITEBACK, "writeback" },
	{ KPF_RECLAIM, "reclaim" },
	{ KPF_MMAP, "mmap" },
	{ KPF_ANON, "anon" },
	{ KPF_SWAPCACHE, "swapcache" },
	{ KPF_SWAPBACKED, "swapbacked" },
	{ KPF_COMPOUND_HEAD, "compound_head" },
	{ KPF_COMPOUND_TAIL, "compound_tail" },
	{ KPF_HUGE, "huge" },
	{ KPF_UNEVICTABLE, "unevictable" },
	{ KPF_THP, "thp" },
	{ KPF_ZERO_PAGE, "zero_page" },
	{ KPF_IDLE, "idle" },
};

static struct block {
	uint64_t start;
	unsigned int read;	/* the refresh after which it was read; 0: never */
	uint64_t flags[BLOCK_PAGES];
} blocks[BLOCKS];
static unsigned int refreshes = 1;

/* The last tail page that page_head() was asked for, and its head. */
static struct {
	uint64_t tail;
	uint64_t head;
	unsigned int read;
} last;

uint64_t *pagemap_read(const struct vm *vm)
{
	size_t size = vm->pages * sizeof(uint64_t);
	uint64_t *entries = malloc(size);
	off_t offset = ((uintptr_t)vm->slot >> GUEST_PAGE_SHIFT) * sizeof(uint64_t);
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t done = 0;

	if (!entries)
		die("out of memory");
	if (fd < 0)
		die_errno("/proc/self/pagemap");
	while (done < size) {
		ssize_t got = pread(fd, (char *)entries + done, size - done, offset + done);

		if (got <= 0)
			die_errno("pread of /proc/self/pagemap");
		done += got;
	}
	close(fd);
	for (uint32_t page = 0; page < vm->pages; page++) {
		if (!(entries[page] & PM_PRESENT))
			entries[page] = PFN_NONE;
		else if (!(entries[page] & PM_PFN))
			die("/proc/self/pagemap hides the PFNs: CAP_SYS_ADMIN is needed");
		else
			entries[page] &= PM_PFN;
	}
	return entries;
}

void page_flags_refresh(void)
{
	refreshes++;
}

uint64_t page_flags(uint64_t pfn)
{
	static int fd = -1;
	uint64_t start = pfn - pfn % BLOCK_PAGES;
	struct block *block = &blocks[start / BLOCK_PAGES % BLOCKS];
	ssize_t got;

	if (block->start == start && block->read == refreshes)
		return block->flags[pfn - start];
	if (fd < 0)
		fd = open(PAGE_FLAGS, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		die_errno(PAGE_FLAGS);
	block->read = 0;
	got = pread(fd, block->flags, sizeof(block->flags), start * sizeof(uint64_t));
	if (got < (ssize_t)((pfn - start + 1) * sizeof(uint64_t)))
		die_errno(PAGE_FLAGS);
	block->start = start;
	block->read = refreshes;
	return block->flags[pfn - start];
}

static bool is_tail(uint64_t pfn)
{
	return page_flags(pfn) & (1ULL << KPF_COMPOUND_TAIL);
}

/* Asked for the pages of a huge page in their order it goes back to the head but once. */
uint64_t page_head(uint64_t pfn)
{
	uint64_t head = pfn;

	while (head && is_tail(head)) {
		head--;
		if (head == last.tail && last.read == refreshes)
			head = last.head;
	}
	if (head != pfn) {
		last.tail = pfn;
		last.head = head;
		last.read = refreshes;
	}
	return head;
}

/* A huge page is on a list as a whole; in older kernels (6.2) its head alone says so. */
static uint64_t own_or_heads_flags(uint64_t pfn)
{
	uint64_t bits = page_flags(pfn);

	if (bits & (1ULL << KPF_COMPOUND_TAIL))
		bits |= page_flags(page_head(pfn)) & (1ULL << KPF_LRU);
	return bits;
}

static void print_run(const char *comma, uint32_t page, uint32_t count, uint64_t pfn)
{
	fprintf(reply, "%s%u+%u:%" PRIu64, comma, page, count, pfn);
}

int command_pfns(struct vm *vm, char **words)
{
	uint64_t *pfns = pagemap_read(vm);
	const char *comma = "";
	uint32_t present = 0, run;

	(void)words;
	for (uint32_t page = 0; page < vm->pages; page++)
		present += pfns[page] != PFN_NONE;
	reply_ok(" present=%u map=%s", present, present ? "" : "-");
	for (uint32_t page = 0; page < vm->pages; page += run) {
		run = 1;
		if (pfns[page] == PFN_NONE)
			continue;
		while (page + run < vm->pages && pfns[page + run] == pfns[page] + run)
			run++;
		print_run(comma, page, run, pfns[page]);
		comma = ",";
	}
	free(pfns);
	return 0;
}

int command_flags(struct vm *vm, char **words)
{
	uint64_t *pfns = pagemap_read(vm);
	uint32_t counts[ARRAY_SIZE(flags)] = { 0 };
	uint32_t present = 0;

	(void)words;
	page_flags_refresh();
	for (uint32_t page = 0; page < vm->pages; page++) {
		uint64_t bits;

		if (pfns[page] == PFN_NONE)
			continue;
		present++;
		bits = own_or_heads_flags(pfns[page]);
		for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
			counts[i] += bits >> flags[i].bit & 1;
	}
	reply_ok(" present=%u", present);
	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		fprintf(reply, " %s=%u", flags[i].name, counts[i]);
	free(pfns);
	return 0;
}

int command_flagged(struct vm *vm, char **words)
{
	size_t flag = 0;
	uint32_t count = 0;
	uint64_t *pfns;
	bool *found;

	while (flag < ARRAY_SIZE(flags) && strcmp(flags[flag].name, words[0]))
		flag++;
	if (flag == ARRAY_SIZE(flags))
		return reply_error("usage", "no flag is named %s", words[0]);
	pfns = pagemap_read(vm);
	found = calloc(vm->pages, sizeof(*found));
	if (!found)
		die("out of memory");
	page_flags_refresh();
	for (uint32_t page = 0; page < vm->pages; page++) {
		if (pfns[page] != PFN_NONE)
			found[page] = own_or_heads_flags(pfns[page]) >> flags[flag].bit & 1;
		count += found[page];
	}
	reply_ok(" count=%u pages=", count);
	ranges_print(reply, found, vm->pages);
	free(found);
	free(pfns);
	return 0;
}
