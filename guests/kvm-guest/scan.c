// SPDX-License-Identifier: GPL-2.0-only
/*
 * Which tested pages were written since they were asked for the last time, by
 * PAGEMAP_SCAN, as programs do that save another one. See
 * Documentation/admin-guide/mm/pagemap.rst, "Pagemap Scan IOCTL".
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "commands.h"
#include "ranges.h"
#include "reply.h"
#include "uffd.h"

/* Linux 6.7 has these; headers of older ones do not. From linux/fs.h and userfaultfd.h. */
#define WP_ASYNC (1ULL << 15)
#define WRITTEN (1ULL << 1)
#define PROTECT_MATCHING (1ULL << 0)
#define CHECK_ASYNC (1ULL << 1)

struct region {
	uint64_t start;
	uint64_t end;
	uint64_t categories;
};

struct scan {
	uint64_t size;
	uint64_t flags;
	uint64_t start;
	uint64_t end;
	uint64_t walk_end;
	uint64_t regions;
	uint64_t region_count;
	uint64_t max_pages;
	uint64_t category_inverted;
	uint64_t category_mask;
	uint64_t category_anyof_mask;
	uint64_t return_mask;
};

#define SCAN _IOWR('f', 16, struct scan)

/* Of all tested pages, from the first command to the end. */
static int uffd = -1;
static int pagemap = -1;

static int open_once(const struct vm *vm)
{
	if (uffd < 0)
		uffd = uffd_open_slot(vm, WP_ASYNC, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
				      "no PAGEMAP_SCAN for writes");
	if (uffd < 0)
		return -1;
	if (pagemap < 0)
		pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return pagemap < 0 ? reply_errno("open of /proc/self/pagemap") : 0;
}

/* Protects what was written; @regions has room for @count, and may be NULL. */
static long scan(const struct vm *vm, struct region *regions, uint32_t count)
{
	struct scan scan = {
		.size = sizeof(scan),
		.flags = PROTECT_MATCHING | CHECK_ASYNC,
		.start = (uintptr_t)vm->slot,
		.end = (uintptr_t)vm_page(vm, vm->pages),
		.regions = (uintptr_t)regions,
		.region_count = regions ? count : 0,
		.category_mask = WRITTEN,
		.return_mask = WRITTEN,
	};

	return ioctl(pagemap, SCAN, &scan);
}

static int protect(const struct vm *vm)
{
	if (scan(vm, NULL, 0) < 0)
		return reply_errno("PAGEMAP_SCAN");
	reply_ok("%s", "");
	return 0;
}

static int get(const struct vm *vm, struct region *regions, bool *written)
{
	long found = scan(vm, regions, vm->pages);
	uint32_t count = 0;

	if (found < 0)
		return reply_errno("PAGEMAP_SCAN");
	for (long i = 0; i < found; i++) {
		uint64_t first = (regions[i].start - (uintptr_t)vm->slot) >> GUEST_PAGE_SHIFT;
		uint64_t pages = (regions[i].end - regions[i].start) >> GUEST_PAGE_SHIFT;

		if (first > vm->pages || pages > vm->pages - first)
			die("PAGEMAP_SCAN told of pages that were not asked for");
		memset(written + first, true, pages);
		count += pages;
	}
	reply_ok(" count=%u pages=", count);
	ranges_print(reply, written, vm->pages);
	return 0;
}

int command_pagemap_scan(struct vm *vm, char **words)
{
	bool all = !strcmp(words[0], "protect");
	struct region *regions;
	bool *written;
	int result;

	if (!all && strcmp(words[0], "get"))
		return reply_error("usage", "expected: pagemap-scan protect|get");
	if (vm->backing != BACKING_ANON || vm->second)
		return reply_error("usage", "only memory of the backing anon is protected");
	if (vcpus_check_idle(vm) || open_once(vm))
		return -1;
	if (all)
		return protect(vm);
	regions = calloc(vm->pages, sizeof(*regions));
	written = calloc(vm->pages, sizeof(*written));
	if (!regions || !written)
		die("out of memory");
	result = get(vm, regions, written);
	free(regions);
	free(written);
	return result;
}
