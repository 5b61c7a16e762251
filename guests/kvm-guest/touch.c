// SPDX-License-Identifier: GPL-2.0-only
/* Touches of tested pages by the guest, each once, in the order of the list. */
#include <inttypes.h>

#include "commands.h"
#include "reply.h"

static int check_not_spun(const struct vm *vm, const struct vcpu *vcpu, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (vm->write_spins[vcpu->list[i]])
			return reply_error("usage", "page %u is being written by a spin",
					   vcpu->list[i]);
	}
	return 0;
}

static uint64_t value_base(struct vm *vm)
{
	vm->sequence++;
	return (uint64_t)vm->sequence << 32;
}

static void expect_written(struct vm *vm, const struct vcpu *vcpu, uint32_t count, uint64_t base)
{
	for (uint32_t i = 0; i < count; i++)
		vm->expected[vcpu->list[i]] = base + vcpu->list[i];
}

static uint64_t expected_check(const struct vm *vm, const struct vcpu *vcpu, uint32_t count)
{
	uint64_t check = 0;

	for (uint32_t i = 0; i < count; i++)
		check ^= vm->expected[vcpu->list[i]];
	return check;
}

/* Touches the first @count pages of the vCPU's list and composes the reply. */
static int touch(struct vm *vm, struct vcpu *vcpu, bool write, uint32_t count)
{
	uint64_t base = 0, check = 0;
	int failed;

	if (write) {
		if (check_not_spun(vm, vcpu, count))
			return -1;
		base = value_base(vm);
	} else {
		check = expected_check(vm, vcpu, count);
	}
	vcpu_go(vcpu, write ? MAILBOX_WRITE : MAILBOX_READ, count, base);
	failed = vcpu_wait_parked(vcpu, vm->timeout);
	/* A store to the read-only slot goes nowhere. */
	if (write && !vm->readonly)
		expect_written(vm, vcpu, vcpu_touches(vcpu), base);
	if (failed)
		return -1;
	if (!write && vcpu->mailbox->check != check)
		return reply_error("data", "vcpu=%u the guest did not read what it wrote",
				   vcpu->id);
	reply_ok(" vcpu=%u pages=%" PRIu64, vcpu->id, vcpu_touches(vcpu));
	vcpu_stats_print_since(&vcpu->stats, vcpu->before);
	return 0;
}

int command_touch(struct vm *vm, char **words)
{
	struct vcpu *vcpu;
	uint32_t count;
	bool write;

	if (parse_task(vm, words, &write, &vcpu, &count))
		return -1;
	return touch(vm, vcpu, write, count);
}

int command_populate(struct vm *vm, char **words)
{
	struct vcpu *vcpu = &vm->vcpus[0];

	(void)words;
	if (vcpu_check_idle(vcpu))
		return -1;
	for (uint32_t page = 0; page < vm->pages; page++)
		vcpu->list[page] = page;
	return touch(vm, vcpu, true, vm->pages);
}
