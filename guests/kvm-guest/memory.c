// SPDX-License-Identifier: GPL-2.0-only
/* What this process itself does to the tested pages and to the host's lists of them. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "array_size.h"
#include "commands.h"
#include "ranges.h"
#include "reply.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25	/* since Linux 6.1 */
#endif

#define DROP_CACHES "/proc/sys/vm/drop_caches"

static int verify(const struct vm *vm, const uint32_t *list, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t page = list[i];
		const char *at = vm_page(vm, page);
		uint64_t got = __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);

		if (got != vm->expected[page])
			return reply_error("data", "page=%u expected=0x%" PRIx64 " got=0x%" PRIx64,
					   page, vm->expected[page], got);
	}
	reply_ok(" pages=%u", count);
	return 0;
}

/* The advice of that name, -1 if there is none. */
static int advice_of(const char *word)
{
	static const struct {
		const char *name;
		int advice;
	} known[] = {
		{ "dontneed", MADV_DONTNEED },
		{ "free", MADV_FREE },
		{ "cold", MADV_COLD },
		{ "pageout", MADV_PAGEOUT },
		{ "willneed", MADV_WILLNEED },
		{ "remove", MADV_REMOVE },
		{ "hugepage", MADV_HUGEPAGE },
		{ "nohugepage", MADV_NOHUGEPAGE },
		{ "dontdump", MADV_DONTDUMP },
		{ "collapse", MADV_COLLAPSE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (!strcmp(word, known[i].name))
			return known[i].advice;
	}
	return -1;
}

static int apply(struct vm *vm, int advice, const uint32_t *list, uint32_t count)
{
	bool zeroes = advice == MADV_REMOVE ||
		      (advice == MADV_DONTNEED && !backing_is_shared(vm->backing));

	for (uint32_t i = 0; zeroes && i < count; i++) {
		if (vm->write_spins[list[i]])
			return reply_error("usage", "page %u is being written by a spin", list[i]);
	}
	for (uint32_t i = 0, run; i < count; i += run) {
		run = ranges_run(list + i, count - i);
		if (madvise(vm_page(vm, list[i]), (size_t)run << GUEST_PAGE_SHIFT, advice))
			return reply_errno("madvise");
		for (uint32_t j = 0; zeroes && j < run; j++)
			vm->expected[list[i] + j] = 0;
	}
	reply_ok(" pages=%u", count);
	return 0;
}

int command_verify(struct vm *vm, char **words)
{
	uint32_t *list = new_pages(vm), count;
	int result = -1;

	if (!parse_pages(vm, words[0], list, &count))
		result = verify(vm, list, count);
	free(list);
	return result;
}

int command_advise(struct vm *vm, char **words)
{
	uint32_t *list, count;
	int advice = advice_of(words[0]), result = -1;

	if (advice < 0)
		return reply_error("usage", "unknown advice");
	list = new_pages(vm);
	if (!parse_pages(vm, words[1], list, &count))
		result = apply(vm, advice, list, count);
	free(list);
	return result;
}

/* Puts new memory, all zeroes, where these pages are: the old is unmapped (munmap(2)). */
static int replace(struct vm *vm, const uint32_t *list, uint32_t count)
{
	for (uint32_t i = 0, run; i < count; i += run) {
		char *at = vm_page(vm, list[i]);

		run = ranges_run(list + i, count - i);
		if (mmap(at, (size_t)run << GUEST_PAGE_SHIFT, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
			return reply_errno("mmap");
		/* As before, and it does no harm that a kernel without huge pages refuses. */
		madvise(at, (size_t)run << GUEST_PAGE_SHIFT, MADV_NOHUGEPAGE);
		memset(vm->expected + list[i], 0, run * sizeof(*vm->expected));
		memset(vm->unwritable + list[i], 0, run * sizeof(*vm->unwritable));
	}
	reply_ok(" pages=%u", count);
	return 0;
}

/* Leaves nothing where these pages are (munmap(2)), under a memslot that has them still. */
static int take(struct vm *vm, const uint32_t *list, uint32_t count)
{
	for (uint32_t i = 0, run; i < count; i += run) {
		run = ranges_run(list + i, count - i);
		if (munmap(vm_page(vm, list[i]), (size_t)run << GUEST_PAGE_SHIFT))
			return reply_errno("munmap");
		memset(vm->unwritable + list[i], true, run * sizeof(*vm->unwritable));
	}
	reply_ok(" pages=%u", count);
	return 0;
}

static int change(struct vm *vm, const char *ranges,
		  int (*act)(struct vm *vm, const uint32_t *list, uint32_t count))
{
	uint32_t *list, count;
	int result = -1;

	if (vm->backing != BACKING_ANON || vm->second)
		return reply_error("usage", "only memory of the backing anon is replaced");
	if (vcpus_check_idle(vm))
		return -1;
	list = new_pages(vm);
	if (!parse_pages(vm, ranges, list, &count))
		result = act(vm, list, count);
	free(list);
	return result;
}

int command_take(struct vm *vm, char **words)
{
	return change(vm, words[0], take);
}

int command_replace(struct vm *vm, char **words)
{
	return change(vm, words[0], replace);
}

static int lock(struct vm *vm, bool on, const uint32_t *list, uint32_t count)
{
	for (uint32_t i = 0, run; i < count; i += run) {
		char *at = vm_page(vm, list[i]);
		size_t size;

		run = ranges_run(list + i, count - i);
		size = (size_t)run << GUEST_PAGE_SHIFT;
		if (on ? mlock(at, size) : munlock(at, size))
			return reply_errno("mlock");
	}
	reply_ok(" pages=%u", count);
	return 0;
}

/* Locked pages (mlock(2)) are never evicted, and MGLRU's walk passes them over. */
int command_lock(struct vm *vm, char **words)
{
	bool on = !strcmp(words[0], "on");
	uint32_t *list, count;
	int result = -1;

	if (!on && strcmp(words[0], "off"))
		return reply_error("usage", "expected: lock on|off RANGES");
	list = new_pages(vm);
	if (!parse_pages(vm, words[1], list, &count))
		result = lock(vm, on, list, count);
	free(list);
	return result;
}

/*
 * New pages wait in per-CPU batches before they are on an LRU list. The first
 * thing that drop_caches does is to drain these of all CPUs.
 */
int command_drain(struct vm *vm, char **words)
{
	int fd = open(DROP_CACHES, O_WRONLY | O_CLOEXEC);
	int failed;

	(void)vm;
	(void)words;
	if (fd < 0)
		return reply_errno(DROP_CACHES);
	failed = write(fd, "1", 1) != 1;
	if (failed)
		reply_errno(DROP_CACHES);
	else
		reply_ok("%s", "");
	close(fd);
	return failed ? -1 : 0;
}
