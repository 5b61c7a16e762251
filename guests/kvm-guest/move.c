// SPDX-License-Identifier: GPL-2.0-only
/*
 * Moves tested pages to other addresses of this process, by mremap(2) or by
 * userfaultfd(2), and back.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "array_size.h"
#include "backing.h"
#include "commands.h"
#include "ranges.h"
#include "reply.h"
#include "uffd.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4	/* since Linux 5.7 */
#endif

#ifndef UFFDIO_MOVE		/* since Linux 6.8 */
struct uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 mode;
	__s64 move;
};
#define UFFD_FEATURE_MOVE (1 << 16)
#define UFFDIO_MOVE _IOWR(UFFDIO, 0x05, struct uffdio_move)
#endif

enum how { AWAY, LEAVE, UFFD };

static char *area;		/* address space for them, NULL if none is moved */
static size_t area_size;
static char *first_at;		/* where in it page 0 of the slot would be */
static uint32_t *list;		/* which are there */
static uint32_t count;
static uint64_t *held;		/* and what each of them held */

static char *moved_at(uint32_t page)
{
	return first_at + ((size_t)page << GUEST_PAGE_SHIFT);
}

/* As far from a multiple of 2 MiB as the slot, or huge pages and whole tables do not move. */
static int reserve(const struct vm *vm)
{
	uintptr_t skew = (uintptr_t)vm->slot & (HUGE_PAGE_SIZE - 1);

	area_size = ((size_t)vm->pages << GUEST_PAGE_SHIFT) + 2 * HUGE_PAGE_SIZE;
	area = mmap(NULL, area_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	if (area == MAP_FAILED) {
		area = NULL;
		return reply_errno("mmap");
	}
	first_at = (char *)(((uintptr_t)area + HUGE_PAGE_SIZE - 1) & ~(HUGE_PAGE_SIZE - 1)) +
		    skew;
	return 0;
}

static void forget(void)
{
	munmap(area, area_size);
	area = NULL;
	free(list);
	free(held);
}

/* Nothing else of this process may come to where the pages were. */
static bool bar(char *at, size_t size)
{
	return mmap(at, size, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

/* An fd of userfaultfd(2) to move pages into the area by, or -1 with the error as the reply. */
static int open_uffd(void)
{
	struct uffdio_register all = {
		.range = { .start = (uintptr_t)area, .len = area_size },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	if (mprotect(area, area_size, PROT_READ | PROT_WRITE))
		return reply_errno("mprotect");
	/* As the slot's memory is; it comes back with what the area is. */
	backing_use_small_pages(area, area_size);
	return uffd_open(UFFD_FEATURE_MOVE, 0, &all, "no move by userfaultfd");
}

/* So many bytes that lie together. The kernel ends early where somebody else holds a page. */
static void move_run(int uffd, char *from, char *to, size_t size)
{
	for (size_t done = 0; done < size;) {
		struct uffdio_move run = {
			.dst = (uintptr_t)to + done,
			.src = (uintptr_t)from + done,
			.len = size - done,
		};

		if (ioctl(uffd, UFFDIO_MOVE, &run) && errno != EAGAIN)
			die_errno("UFFDIO_MOVE");
		if (run.move > 0)
			done += run.move;
	}
}

/* As by MREMAP_DONTUNMAP there are zeroes in their place then. */
static int away_by_uffd(struct vm *vm)
{
	int uffd = open_uffd();

	if (uffd < 0) {
		forget();
		return -1;
	}
	for (uint32_t i = 0, run; i < count; i += run) {
		run = ranges_run(list + i, count - i);
		move_run(uffd, vm_page(vm, list[i]), moved_at(list[i]),
			 (size_t)run << GUEST_PAGE_SHIFT);
	}
	close(uffd);
	for (uint32_t i = 0; i < count; i++) {
		held[i] = vm->expected[list[i]];
		vm->expected[list[i]] = 0;
	}
	reply_ok(" pages=%u", count);
	return 0;
}

static int away(struct vm *vm, bool leave)
{
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED | (leave ? MREMAP_DONTUNMAP : 0);

	for (uint32_t i = 0, run; i < count; i += run) {
		char *at = vm_page(vm, list[i]);
		size_t size;

		run = ranges_run(list + i, count - i);
		size = (size_t)run << GUEST_PAGE_SHIFT;
		/* Part of it may have gone: there is no way on from there. */
		if (mremap(at, size, size, flags, moved_at(list[i])) == MAP_FAILED)
			die_errno("mremap");
		if (!leave && !bar(at, size))
			die_errno("mmap");
	}
	for (uint32_t i = 0; i < count; i++) {
		held[i] = vm->expected[list[i]];
		if (leave)
			vm->expected[list[i]] = 0;
		else
			vm->unwritable[list[i]] = true;
	}
	reply_ok(" pages=%u", count);
	return 0;
}

static int check_writable(const struct vm *vm)
{
	for (uint32_t i = 0; i < count; i++) {
		if (vm->unwritable[list[i]])
			return reply_error("usage", "page %u cannot be written", list[i]);
	}
	return 0;
}

static int move(struct vm *vm, const char *ranges, enum how how)
{
	if (how == LEAVE && vm->backing != BACKING_ANON && vm->backing != BACKING_THP)
		return reply_error("usage", "only anonymous memory leaves zeroes behind");
	if (how == UFFD && vm->backing != BACKING_ANON)
		return reply_error("usage", "only memory of the backing anon is moved so");
	if (vm->second)
		return reply_error("usage", "the pages are in two slots");
	if (area)
		return reply_error("usage", "there are pages that were moved already");
	if (reserve(vm))
		return -1;
	list = malloc(vm->pages * sizeof(*list));
	held = malloc(vm->pages * sizeof(*held));
	if (!list || !held)
		die("out of memory");
	if (parse_pages(vm, ranges, list, &count) || check_writable(vm)) {
		forget();
		return -1;
	}
	return how == UFFD ? away_by_uffd(vm) : away(vm, how == LEAVE);
}

static int look(void)
{
	for (uint32_t i = 0; i < count; i++) {
		uint64_t got = __atomic_load_n((const uint64_t *)moved_at(list[i]),
					       __ATOMIC_ACQUIRE);

		if (got != held[i])
			return reply_error("data",
					   "page=%u moved away expected=0x%" PRIx64 " got=0x%" PRIx64,
					   list[i], held[i], got);
	}
	reply_ok(" pages=%u", count);
	return 0;
}

static int back(struct vm *vm)
{
	for (uint32_t i = 0, run; i < count; i += run) {
		size_t size;

		run = ranges_run(list + i, count - i);
		size = (size_t)run << GUEST_PAGE_SHIFT;
		if (mremap(moved_at(list[i]), size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
			   vm_page(vm, list[i])) == MAP_FAILED)
			die_errno("mremap");
	}
	for (uint32_t i = 0; i < count; i++) {
		vm->expected[list[i]] = held[i];
		vm->unwritable[list[i]] = false;
	}
	reply_ok(" pages=%u", count);
	forget();
	return 0;
}

int command_move(struct vm *vm, char **words)
{
	static const char *const names[] = { [AWAY] = "away", [LEAVE] = "leave", [UFFD] = "uffd" };

	if (vcpus_check_idle(vm))
		return -1;
	for (size_t how = 0; how < ARRAY_SIZE(names); how++) {
		if (!strcmp(words[0], names[how]))
			return move(vm, words[1], how);
	}
	return reply_error("usage", "expected: move away|leave|uffd RANGES");
}

int command_moved(struct vm *vm, char **words)
{
	bool watch = !strcmp(words[0], "look");

	if (!watch && strcmp(words[0], "back"))
		return reply_error("usage", "expected: moved look|back");
	if (!area)
		return reply_error("usage", "no pages were moved");
	if (watch)
		return look();
	return vcpus_check_idle(vm) ? -1 : back(vm);
}
