// SPDX-License-Identifier: GPL-2.0-only
#include "subject.h"

#include <inttypes.h>
#include <sys/mman.h>
#include <time.h>

#include "files.h"
#include "reply.h"
#include "say.h"

void subject_drain(void)
{
	file_write("/proc/sys/vm/drop_caches", "1");
}

/*
 * Keeps all memory of this process but the tested pages from being aged and reclaimed: only these
 * are to be measured. Besides, QEMU's TLB grows and shrinks by the controller's clock, and so it
 * is no matter of instructions when it makes a page young again that is accessed all the time.
 */
static void lock_all_but(const struct vm *vm)
{
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) ||
	    munlock(vm->slot, (size_t)vm->pages << GUEST_PAGE_SHIFT))
		die_errno("mlockall");
}

void subject_run(struct vm *vm, enum mailbox_command command, uint32_t pages)
{
	struct vcpu *vcpu = &vm->vcpus[0];

	vcpu_tell(vcpu, command, pages, 1);
	if (!vcpu_run_here(vcpu) || vcpu_touches(vcpu) != pages)
		die("the guest did not touch its pages");
}

void subject_guest(struct vm *vm, uint32_t pages, uint32_t present)
{
	*vm = (struct vm){ .backing = BACKING_ANON, .pages = pages, .vcpu_count = 1 };
	vm_make(vm);
	lock_all_but(vm);
	if (!vcpu_run_here(&vm->vcpus[0]))
		die("the guest did not start");
	for (uint32_t page = 0; page < present; page++)
		vm->vcpus[0].list[page] = page;
	if (present)
		subject_run(vm, MAILBOX_WRITE, present);
	subject_drain();
}

void subject_bare(struct vm *vm, uint32_t pages)
{
	*vm = (struct vm){ .pages = pages };
	vm->slot = backing_map(BACKING_ANON, (size_t)pages << GUEST_PAGE_SHIFT, NULL);
	lock_all_but(vm);
	for (uint32_t page = 0; page < pages; page++)
		vm->slot[(size_t)page << GUEST_PAGE_SHIFT] = 1;
	subject_drain();
}

/* The tick is what moves this clock. */
static long coarse_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_nsec;
}

void subject_await_tick(void)
{
	long before = coarse_clock();

	while (coarse_clock() == before)
		;
}

void subject_tell(const char *metric, uint32_t pages, int pass, uint64_t units, uint64_t count)
{
	say("pass %s pages=%" PRIu32 " pass=%d units=%" PRIu64 " instructions=%" PRIu64, metric,
	    pages, pass, units, count);
}
