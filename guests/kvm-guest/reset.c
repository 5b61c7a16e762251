// SPDX-License-Identifier: GPL-2.0-only
/* A guest that starts anew: its memory stays, and its vCPUs are as on their first day. */
#include "commands.h"
#include "reply.h"

int command_reset(struct vm *vm, char **words)
{
	(void)words;
	if (vcpus_check_idle(vm))
		return -1;
	/* None of them runs before all are reset. */
	for (unsigned int i = 0; i < vm->vcpu_count; i++)
		vcpu_reset(&vm->vcpus[i]);
	for (unsigned int i = 0; i < vm->vcpu_count; i++) {
		if (vcpu_restart(&vm->vcpus[i], vm->timeout))
			return -1;
	}
	reply_ok(" vcpus=%u", vm->vcpu_count);
	return 0;
}
