// SPDX-License-Identifier: GPL-2.0-only
/*
 * Another VM that has the tested pages too comes and goes. Whoever ages a page
 * asks every VM of the process for it, and so comes to one that is being torn down.
 */
#include "race.h"
#include "reply.h"

static int look_at_all(struct vm *other)
{
	struct vcpu *vcpu = &other->vcpus[0];

	/* Its payload parks at once, and then again when it has read each page. */
	if (!vcpu_run_here(vcpu))
		return reply_error("guest", "the vCPU of a second VM did not start");
	vcpu->mailbox->command = MAILBOX_READ;
	vcpu->mailbox->list = vcpu->list_ipa;
	vcpu->mailbox->count = other->pages;
	for (uint32_t page = 0; page < other->pages; page++)
		vcpu->list[page] = page;
	if (!vcpu_run_here(vcpu))
		return reply_error("guest", "the vCPU of a second VM did not read all pages");
	return 0;
}

int oppose_by_vm(struct race *race, uint32_t first, uint32_t count)
{
	struct vm other;
	int result;

	(void)first;
	(void)count;
	vm_create_second(&other, race->vm);
	result = look_at_all(&other);
	vm_close_vcpus(&other);
	/* The last that holds it. */
	race_begin(race, RACE_ACT, 0, race->vm->pages);
	vm_close(&other);
	race_end(race, 0, race->vm->pages);
	race->counts.vms++;
	return result;
}
