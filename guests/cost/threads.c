// SPDX-License-Identifier: GPL-2.0-only
#include "threads.h"

#include <sys/mman.h>
#include <unistd.h>

#include "calls.h"
#include "counter.h"
#include "damon.h"
#include "khugepaged.h"
#include "reply.h"
#include "subject.h"

/* kthreadd, which starts all threads of the kernel. */
#define KTHREADD 2
#define RANGE ((uint32_t)(HUGE_PAGE_SIZE >> GUEST_PAGE_SHIFT))
/*
 * What it takes a thread of the kernel to find a page of a process depends on what else is mapped
 * there. So that is the same for each number of pages: a guest with room for so many.
 */
#define ROOM (2 * RANGE)

static void begin(struct vm *vm, uint32_t pages, uint32_t present)
{
	if (pages > ROOM)
		die("no room for so many pages");
	subject_guest(vm, ROOM, present);
}

/* The first of the guest's pages are the tested ones, and no others are there. */
static void begin_damon(struct vm *vm, uint32_t pages)
{
	begin(vm, pages, pages);
	damon_prepare(vm->slot, pages);
}

void measure_damon(uint32_t pages)
{
	static struct vm vm;

	if (!damon_exists())
		return;
	begin_damon(&vm, pages);
	for (int pass = 0; pass < PASSES; pass++) {
		uint64_t start, aged, before, asked;
		int counter;

		subject_run(&vm, MAILBOX_READ, pages);
		/* DAMON has a new thread each time, at work before anybody knows its pid. */
		counter = counter_open_descendants(KTHREADD);
		subject_await_tick();
		start = counter_read(counter);
		damon_on();
		aged = counter_read(counter);
		subject_await_tick();
		before = counter_read(counter);
		damon_off();
		asked = counter_read(counter);
		close(counter);
		subject_tell("damon", pages, pass, pages, aged - start);
		subject_tell("damon-check", pages, pass, pages, asked - before);
	}
	damon_remove();
}

void count_damon(uint32_t pages)
{
	static struct vm vm;

	if (!damon_exists())
		return;
	begin_damon(&vm, pages);
	calls_count();
	damon_on();
	calls_tell("damon", pages);
	calls_count();
	damon_off();
	calls_tell("damon-check", pages);
	damon_remove();
}

/*
 * Two ranges of 2 MiB, whatever the number of pages, with as many pages in each and an absent one
 * behind them, at which khugepaged gives up. Returns how many pages there are.
 */
static uint32_t begin_khugepaged(struct vm *vm, uint32_t pages)
{
	const uint32_t each = pages / 2 - 1;
	const size_t size = (size_t)ROOM << GUEST_PAGE_SHIFT;

	begin(vm, pages, 0);
	for (uint32_t page = 0; page < 2 * each; page++)
		vm->vcpus[0].list[page] = page < each ? page : RANGE + page - each;
	subject_run(vm, MAILBOX_WRITE, 2 * each);
	/* It asks KVM only for what is old to the host. */
	if (madvise(vm->slot, size, MADV_COLD) || madvise(vm->slot, size, MADV_HUGEPAGE))
		die_errno("madvise");
	subject_drain();
	return 2 * each;
}

void measure_khugepaged(uint32_t pages)
{
	pid_t thread = khugepaged_thread();
	static struct vm vm;
	uint32_t present;
	int counter;

	if (!thread)
		return;
	khugepaged_stop();
	counter = counter_open_thread(thread);
	present = begin_khugepaged(&vm, pages);
	for (int pass = 0; pass < PASSES; pass++) {
		uint64_t before;

		subject_await_tick();
		before = counter_read(counter);
		khugepaged_scan();
		subject_tell("khugepaged", pages, pass, present, counter_read(counter) - before);
	}
}

void count_khugepaged(uint32_t pages)
{
	static struct vm vm;

	if (!khugepaged_thread())
		return;
	khugepaged_stop();
	begin_khugepaged(&vm, pages);
	/* It has had a look when the memory was advised to be huge. */
	khugepaged_scan();
	calls_count();
	khugepaged_scan();
	calls_tell("khugepaged", pages);
}
