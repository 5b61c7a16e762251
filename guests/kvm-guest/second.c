// SPDX-License-Identifier: GPL-2.0-only
#include "second.h"

#include <inttypes.h>
#include <string.h>

#include "reply.h"

/* The reply for one that did not do @what: it did not park. */
static int reply_stopped(const struct vcpu *vcpu, const char *what)
{
	const struct mailbox *mailbox = vcpu->mailbox;

	if (vcpu->state == VCPU_EXCEPTION)
		return reply_error("guest", "the vCPU of a second VM did not %s: esr=0x%" PRIx64
				   " elr=0x%" PRIx64 " far=0x%" PRIx64, what, mailbox->esr,
				   mailbox->elr, mailbox->far);
	if (vcpu->error)
		return reply_error("guest", "the vCPU of a second VM did not %s: %s (errno %d)",
				   what, strerror(vcpu->error), vcpu->error);
	return reply_error("guest", "the vCPU of a second VM did not %s: exit_reason=%u", what,
			   vcpu->run->exit_reason);
}

int second_reads_all(struct vm *second)
{
	struct vcpu *vcpu = &second->vcpus[0];

	/* Its payload parks at once, and then again when it has read each page. */
	if (!vcpu_run_here(vcpu))
		return reply_stopped(vcpu, "start");
	vcpu->mailbox->command = MAILBOX_READ;
	vcpu->mailbox->list = vcpu->list_ipa;
	vcpu->mailbox->count = second->pages;
	for (uint32_t page = 0; page < second->pages; page++)
		vcpu->list[page] = page;
	if (!vcpu_run_here(vcpu))
		return reply_stopped(vcpu, "read all pages");
	return 0;
}
