// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes and ends VMs that never run, many in a short time: what one of them
 * leaves behind is small, what hundreds leave is not.
 */
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "commands.h"
#include "reply.h"

#define MAX_CHURN 100000

int command_churn(struct vm *vm, char **words)
{
	uint32_t count;

	if (parse_number(words[0], MAX_CHURN, "COUNT", &count))
		return -1;
	for (uint32_t i = 0; i < count; i++) {
		int fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);

		if (fd < 0)
			return reply_errno("KVM_CREATE_VM");
		close(fd);
	}
	reply_ok(" vms=%u", count);
	return 0;
}
