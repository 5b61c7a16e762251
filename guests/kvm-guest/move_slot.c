// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tested slot at another guest physical address and back, with its dirty log as
 * it is; deleted with its log as it is, and made anew; and where the addresses of a VM
 * end, beyond which it can have no slot.
 */
#include <errno.h>
#include <string.h>

#include "commands.h"
#include "reply.h"

#define OTHER_IPA 0x300000000UL

int command_move_slot(struct vm *vm, char **words)
{
	(void)words;
	if (vm->second || vm->ring)
		return reply_error("usage", "the pages are in two slots, or rings name the slot");
	if (vcpus_check_idle(vm))
		return -1;
	if (vm_move_slot(vm, OTHER_IPA) || vm_move_slot(vm, vm_slot_ipa(vm)))
		return reply_errno("KVM_SET_USER_MEMORY_REGION");
	reply_ok("%s", "");
	return 0;
}

/* KVM sees no end of a log whose slot goes with it. Made anew, the slot has none. */
int command_slot(struct vm *vm, char **words)
{
	bool on = !strcmp(words[0], "on");

	if (!on && strcmp(words[0], "off"))
		return reply_error("usage", "expected: slot on|off");
	if (vm->second || vm->ring)
		return reply_error("usage", "the pages are in two slots, or rings name the slot");
	if (vcpus_check_idle(vm))
		return -1;
	if (on != vm->slot_off)
		return reply_error("usage", "the slot is %s already", on ? "there" : "gone");
	if (on ? vm_set_slot_flags(vm, 0) : vm_delete_slot(vm))
		return reply_errno("KVM_SET_USER_MEMORY_REGION");
	vm->slot_off = !on;
	vm->dirty_log = false;
	reply_ok("%s", "");
	return 0;
}

/* errno of a further slot of so many pages, 0 if KVM made it; then it is gone again. */
static int try_slot(const struct vm *vm, uint64_t ipa, unsigned int pages)
{
	if (vm_set_second_slot(vm, ipa, (uint64_t)pages << GUEST_PAGE_SHIFT))
		return errno;
	if (vm_set_second_slot(vm, ipa, 0))
		die_errno("KVM_SET_USER_MEMORY_REGION of a slot to be deleted");
	return 0;
}

int command_slot_beyond(struct vm *vm, char **words)
{
	uint64_t end = 1UL << vm->ipa_bits;
	int before, across, beyond, moved;

	(void)words;
	if (vm->second || vm->ring || vm->pages < 2)
		return reply_error("usage", "two slots, rings that name the slot, or one page");
	if (vcpus_check_idle(vm))
		return -1;
	before = try_slot(vm, end - GUEST_PAGE_SIZE, 1);
	across = try_slot(vm, end - GUEST_PAGE_SIZE, 2);
	beyond = try_slot(vm, end, 1);
	moved = vm_move_slot(vm, end) ? errno : 0;
	if (!moved && vm_move_slot(vm, vm_slot_ipa(vm)))
		die_errno("KVM_SET_USER_MEMORY_REGION of a slot to be moved back");
	reply_ok(" before=%d across=%d beyond=%d moved=%d", before, across, beyond, moved);
	return 0;
}
