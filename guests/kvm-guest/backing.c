// SPDX-License-Identifier: GPL-2.0-only
#include "backing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "array_size.h"
#include "layout.h"
#include "reply.h"

#define OVERCOMMIT "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"

static const char * const names[] = {
	[BACKING_ANON] = "anon",
	[BACKING_THP] = "thp",
	[BACKING_HUGETLB] = "hugetlb",
	[BACKING_HUGETLBSHARED] = "hugetlbshared",
	[BACKING_CONTIGUOUS] = "contiguous",
	[BACKING_GIGANTIC] = "gigantic",
	[BACKING_MEMFD] = "memfd",
	[BACKING_MEMFDTHP] = "memfdthp",
	[BACKING_FILE] = "file",
	[BACKING_FILEPRIVATE] = "fileprivate",
};

bool backing_parse(const char *name, enum backing *backing)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(name, names[i])) {
			*backing = i;
			return true;
		}
	}
	return false;
}

const char *backing_name(enum backing backing)
{
	return names[backing];
}

bool backing_is_huge(enum backing backing)
{
	return backing == BACKING_THP || backing == BACKING_HUGETLB ||
	       backing == BACKING_HUGETLBSHARED || backing == BACKING_CONTIGUOUS ||
	       backing == BACKING_GIGANTIC || backing == BACKING_MEMFDTHP;
}

size_t backing_page_size(enum backing backing)
{
	if (backing == BACKING_GIGANTIC)
		return GIGANTIC_PAGE_SIZE;
	if (backing == BACKING_CONTIGUOUS)
		return CONTIGUOUS_PAGE_SIZE;
	return backing_is_huge(backing) ? HUGE_PAGE_SIZE : GUEST_PAGE_SIZE;
}

bool backing_is_file(enum backing backing)
{
	return backing == BACKING_FILE || backing == BACKING_FILEPRIVATE;
}

bool backing_is_shared(enum backing backing)
{
	return backing == BACKING_MEMFD || backing == BACKING_MEMFDTHP ||
	       backing == BACKING_HUGETLBSHARED || backing == BACKING_FILE;
}

/*
 * Address space for @size, aligned to @alignment, to map over with MAP_FIXED.
 * From two huge pages on, its middle is at a multiple of 1 GiB: there one of the
 * host's tables of huge pages ends and another begins, for whoever walks them.
 */
static void *reserve(size_t size, size_t alignment)
{
	size_t below = size / 2 & ~(alignment - 1) & ~(HUGE_PAGE_SIZE - 1);
	char *area = mmap(NULL, size + 2 * GIGANTIC_PAGE_SIZE, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (area == MAP_FAILED)
		die_errno("mmap of address space for the tested slot");
	area += below + GIGANTIC_PAGE_SIZE - 1;
	return (void *)((uintptr_t)area & ~(GIGANTIC_PAGE_SIZE - 1)) - below;
}

static void *map_over(void *area, size_t size, int flags, int fd)
{
	void *memory = mmap(area, size, PROT_READ | PROT_WRITE, MAP_FIXED | flags, fd, 0);

	if (memory == MAP_FAILED)
		die_errno("mmap of the tested slot");
	return memory;
}

static void use_huge_pages(void *memory, size_t size)
{
	if (madvise(memory, size, MADV_HUGEPAGE))
		die_errno("madvise(MADV_HUGEPAGE)");
}

void backing_use_small_pages(void *memory, size_t size)
{
	/* A kernel without transparent huge pages does not know the advice. */
	if (madvise(memory, size, MADV_NOHUGEPAGE) && errno != EINVAL)
		die_errno("madvise(MADV_NOHUGEPAGE)");
}

static unsigned long read_number(const char *path)
{
	char text[32] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		die_errno(path);
	close(fd);
	return strtoul(text, NULL, 10);
}

static void write_number(const char *path, unsigned long number)
{
	char text[32];
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int length = snprintf(text, sizeof(text), "%lu", number);

	if (fd < 0 || write(fd, text, length) != length)
		die_errno(path);
	close(fd);
}

/* What is shared is of a file that the kernel makes for it. */
static void *map_hugetlb_of(void *area, size_t size, unsigned int shift, int sharing)
{
	return mmap(area, size, PROT_READ | PROT_WRITE,
		    MAP_FIXED | sharing | MAP_ANONYMOUS | MAP_HUGETLB |
		    shift << MAP_HUGE_SHIFT, -1, 0);
}

/*
 * mmap(2) takes the huge pages of a mapping from the pool or, as far as
 * nr_overcommit_hugepages lets it, from the free memory. Such surplus pages go
 * back by themselves when the mapping ends, so the limit is put back at once
 * and nothing is left behind even if this program is killed.
 */
static void *map_hugetlb(void *area, size_t size, int sharing)
{
	unsigned long before = read_number(OVERCOMMIT);
	void *memory;

	write_number(OVERCOMMIT, before + size / HUGE_PAGE_SIZE);
	memory = map_hugetlb_of(area, size, 21, sharing);
	write_number(OVERCOMMIT, before);
	if (memory == MAP_FAILED)
		die_errno("mmap of huge pages for the tested slot");
	return memory;
}

/* The free memory hardly ever has one, so they are the pool's, which is made at boot. */
static void *map_pool(void *area, size_t size, unsigned int shift, const char *what)
{
	void *memory = map_hugetlb_of(area, size, shift, MAP_PRIVATE);

	if (memory == MAP_FAILED)
		die_errno(what);
	return memory;
}

static void *map_memfd(void *area, size_t size)
{
	int fd = memfd_create("kvm-guest", MFD_CLOEXEC);
	void *memory;

	if (fd < 0 || ftruncate(fd, size))
		die_errno("memfd_create");
	memory = map_over(area, size, MAP_SHARED, fd);
	close(fd);
	return memory;
}

/*
 * The file is all hole, so that its pages come with the guest's accesses and
 * are charged to the memcg that the guest is in by then.
 */
static void *map_file(void *area, size_t size, int flags, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	struct stat found;
	void *memory;

	if (fd < 0 || fstat(fd, &found))
		die_errno(path);
	if (found.st_size)
		die("%s is not empty", path);
	if (ftruncate(fd, size))
		die_errno("ftruncate of the file of the tested slot");
	memory = map_over(area, size, flags, fd);
	close(fd);
	return memory;
}

void *backing_map(enum backing backing, size_t size, const char *path)
{
	size_t page_size = backing_page_size(backing);
	void *memory = reserve(size, page_size > HUGE_PAGE_SIZE ? page_size : HUGE_PAGE_SIZE);

	switch (backing) {
	case BACKING_ANON:
		/* It may be more than the host has, if no more of it is touched. */
		map_over(memory, size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
		backing_use_small_pages(memory, size);
		break;
	case BACKING_THP:
		map_over(memory, size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		use_huge_pages(memory, size);
		break;
	case BACKING_HUGETLB:
		map_hugetlb(memory, size, MAP_PRIVATE);
		break;
	case BACKING_HUGETLBSHARED:
		map_hugetlb(memory, size, MAP_SHARED);
		break;
	case BACKING_CONTIGUOUS:
		map_pool(memory, size, 25, "mmap of pages of 32 MiB for the tested slot");
		break;
	case BACKING_GIGANTIC:
		map_pool(memory, size, 30, "mmap of pages of 1 GiB for the tested slot");
		break;
	case BACKING_MEMFD:
		map_memfd(memory, size);
		backing_use_small_pages(memory, size);
		break;
	case BACKING_MEMFDTHP:
		map_memfd(memory, size);
		use_huge_pages(memory, size);
		break;
	case BACKING_FILE:
		map_file(memory, size, MAP_SHARED, path);
		backing_use_small_pages(memory, size);
		break;
	case BACKING_FILEPRIVATE:
		map_file(memory, size, MAP_PRIVATE, path);
		backing_use_small_pages(memory, size);
		break;
	}
	return memory;
}
