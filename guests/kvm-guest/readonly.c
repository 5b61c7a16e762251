// SPDX-License-Identifier: GPL-2.0-only
/* The tested slot as read-only memory of the guest (KVM_MEM_READONLY). */
#include <string.h>

#include "commands.h"
#include "ranges.h"
#include "reply.h"

/* KVM does not change this flag of a slot that exists. */
int command_readonly(struct vm *vm, char **words)
{
	bool on = !strcmp(words[0], "on");

	if (!on && strcmp(words[0], "off"))
		return reply_error("usage", "expected: readonly on|off");
	if (vm->dirty_log || vm->second)
		return reply_error("usage", "the dirty log is on, or the pages are in two slots");
	if (vcpus_check_idle(vm))
		return -1;
	vm->readonly = on;
	memset(vm->refused, 0, vm->pages * sizeof(*vm->refused));
	if (vm_delete_slot(vm) || vm_set_slot_flags(vm, 0))
		return reply_errno("KVM_SET_USER_MEMORY_REGION");
	reply_ok("%s", "");
	return 0;
}

/* The pages of which a store came out to the VMM since the last time. */
int command_refused(struct vm *vm, char **words)
{
	uint32_t count = 0;

	(void)words;
	for (uint32_t page = 0; page < vm->pages; page++)
		count += vm->refused[page];
	reply_ok(" count=%u pages=", count);
	ranges_print(reply, vm->refused, vm->pages);
	memset(vm->refused, 0, vm->pages * sizeof(*vm->refused));
	return 0;
}
