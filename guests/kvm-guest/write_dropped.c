// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages that the host drops between the moment at which it has made a page for a
 * vCPU's store, and the one at which KVM has mapped that; another vCPU reads then.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "commands.h"
#include "judge.h"
#include "now.h"
#include "reply.h"
#include "touch.h"

#define PAGEMAP "/proc/self/pagemap"

/* The entry of one page. Which bits it has is all the same: it changes with the page. */
static uint64_t entry_of(int pagemap, const void *at)
{
	uint64_t entry;
	off_t offset = ((uintptr_t)at >> GUEST_PAGE_SHIFT) * sizeof(entry);

	if (pread(pagemap, &entry, sizeof(entry), offset) != sizeof(entry))
		die_errno("pread of " PAGEMAP);
	return entry;
}

/* Waits until the host has another page there, or the vCPU is through, or takes too long. */
static void wait_changed(int pagemap, const void *at, uint64_t before, const struct vcpu *vcpu)
{
	double until = now() + vcpu->vm->timeout;

	while (entry_of(pagemap, at) == before && vcpu_is_running(vcpu) && now() < until)
		;
}

static void go(struct vcpu *vcpu, enum mailbox_command how, uint32_t page, uint64_t base)
{
	vcpu->list[0] = page;
	vcpu_go(vcpu, how, 1, base);
}

/* Neither vCPU may be left running. */
static int wait_both(struct vm *vm, struct vcpu *writer, struct vcpu *reader)
{
	int failed = vcpu_wait_parked(reader, vm->timeout);

	return vcpu_wait_parked(writer, vm->timeout) || failed ? -1 : 0;
}

/* Before the drop or after it: zero or the value; later all must read the same. */
static int judge(struct vm *vm, const struct vcpu *reader, uint32_t page, uint64_t value)
{
	uint64_t got = __atomic_load_n((const uint64_t *)vm_page(vm, page), __ATOMIC_ACQUIRE);
	uint64_t check = reader->mailbox->check;

	vm->expected[page] = got;
	if (got && got != value)
		return reply_error("data", "page=%u expected=0x%" PRIx64 " or 0 got=0x%" PRIx64,
				   page, value, got);
	if (check != check_add(0, 0) && check != check_add(0, value))
		return reply_error("data", "vcpu=%u the guest did not read what it wrote",
				   reader->id);
	return 0;
}

static int write_dropped(struct vm *vm, int pagemap, struct vcpu *writer, struct vcpu *reader,
			 uint32_t page)
{
	void *at = vm_page(vm, page);
	uint64_t before = entry_of(pagemap, at);
	uint64_t base;
	int error;

	/* As touches do: no other command writes the same value. */
	vm->sequence++;
	base = (uint64_t)vm->sequence << 32;
	go(writer, MAILBOX_WRITE, page, base);
	wait_changed(pagemap, at, before, writer);
	error = madvise(at, 1UL << GUEST_PAGE_SHIFT, MADV_DONTNEED) ? errno : 0;
	go(reader, MAILBOX_READ, page, 0);
	if (wait_both(vm, writer, reader))
		return -1;
	if (error) {
		errno = error;
		return reply_errno("madvise");
	}
	return judge(vm, reader, page, base + page);
}

static int write_all_dropped(struct vm *vm, struct vcpu *writer, struct vcpu *reader,
			     const uint32_t *list, uint32_t count)
{
	int pagemap, result = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (vm->write_spins[list[i]] || vm->unwritable[list[i]])
			return reply_error("usage", "page %u is read-only, or a spin writes it",
					   list[i]);
	}
	pagemap = open(PAGEMAP, O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		return reply_errno(PAGEMAP);
	for (uint32_t i = 0; !result && i < count; i++)
		result = write_dropped(vm, pagemap, writer, reader, list[i]);
	close(pagemap);
	if (!result)
		reply_ok(" pages=%u", count);
	return result;
}

int command_write_dropped(struct vm *vm, char **words)
{
	struct vcpu *writer, *reader;
	uint32_t *list, count;
	int result = -1;

	if (parse_vcpu(vm, words[0], &writer) || vcpu_check_idle(writer) ||
	    parse_vcpu(vm, words[1], &reader) || vcpu_check_idle(reader))
		return -1;
	if (writer == reader || backing_is_shared(vm->backing) || vm->second || vm->readonly)
		return reply_error("usage", "needs two vCPUs, and memory that is private");
	list = new_pages(vm);
	if (!parse_pages(vm, words[2], list, &count))
		result = write_all_dropped(vm, writer, reader, list, count);
	free(list);
	return result;
}
