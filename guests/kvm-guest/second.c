// SPDX-License-Identifier: GPL-2.0-only
#include "second.h"

#include <string.h>

#include "reply.h"

int second_reads_all(struct vm *second)
{
	struct vcpu *vcpu = &second->vcpus[0];

	/* Its payload parks at once, and then again when it has read each page. */
	if (!vcpu_run_here(vcpu))
		return reply_error("guest", "the vCPU of a second VM did not start: %s",
				   strerror(vcpu->error));
	vcpu->mailbox->command = MAILBOX_READ;
	vcpu->mailbox->list = vcpu->list_ipa;
	vcpu->mailbox->count = second->pages;
	for (uint32_t page = 0; page < second->pages; page++)
		vcpu->list[page] = page;
	if (!vcpu_run_here(vcpu))
		return reply_error("guest", "the vCPU of a second VM did not read all pages: %s",
				   strerror(vcpu->error));
	return 0;
}
