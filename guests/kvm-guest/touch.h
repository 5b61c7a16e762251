/* SPDX-License-Identifier: GPL-2.0-only */
/* A touch of the pages in a vCPU's list, in two steps. */
#ifndef TOUCH_H
#define TOUCH_H

#include "vm.h"

struct touch {
	struct vcpu *vcpu;
	enum mailbox_command how;
	uint32_t count;		/* of its list */
	uint64_t base;		/* of the values that it writes */
	uint64_t check;		/* sum of the values that it must read: judge.h */
};

/* Lets the vCPU go, if need be only into the guest; -1 with an error as the reply. */
int touch_start(struct vm *vm, struct touch *touch);

/* Waits @seconds for its end and looks at what it read; -1 with an error as the reply. */
int touch_finish(struct vm *vm, const struct touch *touch, double seconds);

/* Composes the reply of a vCPU whose touch is finished. */
void touch_reply(const struct vcpu *vcpu);

#endif
