// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whether the user API of this kernel has protected VMs, whose memory the host
 * cannot reach. KVM refuses any bit of a VM's type that it does not know.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "commands.h"
#include "reply.h"

/* The headers may be older than the kernel. */
#ifndef KVM_VM_TYPE_ARM_PROTECTED
#define KVM_VM_TYPE_ARM_PROTECTED (1UL << 31)
#endif

int command_protected_vm(struct vm *vm, char **words)
{
	int fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, KVM_VM_TYPE_ARM_PROTECTED);

	(void)words;
	if (fd < 0 && errno != EINVAL)
		return reply_errno("KVM_CREATE_VM");
	if (fd >= 0)
		close(fd);
	reply_ok(" made=%d", fd >= 0);
	return 0;
}
