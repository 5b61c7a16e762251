// SPDX-License-Identifier: GPL-2.0-only
/* The tested slot at another guest physical address and back, with its dirty log as it is. */
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
