/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A vCPU and its thread. While it is parked it is out of KVM_RUN, its payload
 * stopped in the store that reported so.
 */
#ifndef VCPU_H
#define VCPU_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "layout.h"
#include "ring.h"
#include "row.h"
#include "vcpu_stats.h"

enum vcpu_state {
	VCPU_PARKED,
	VCPU_RUNNING,
	VCPU_HUNG,	/* did not park in time, was kicked out of KVM_RUN */
	VCPU_LOST,	/* did not even leave KVM_RUN when kicked */
	VCPU_EXCEPTION,	/* its payload took an exception */
	VCPU_FAILED,	/* KVM_RUN failed or exited for a reason not expected */
};

struct vm;

struct vcpu {
	struct vm *vm;
	unsigned int id;
	int fd;
	struct kvm_run *run;
	size_t run_size;
	struct mailbox *mailbox;
	uint32_t *list;			/* room for every page of the slot */
	uint64_t mailbox_ipa;
	uint64_t list_ipa;
	struct record *records;		/* of each page of the slot */
	uint64_t records_ipa;
	struct ring ring;
	struct vcpu_stats stats;
	struct vcpu_counts before;	/* counts when it was last let go */

	pthread_t thread;
	pthread_cond_t go;
	pid_t tid;
	enum vcpu_state state;
	bool kicked;
	uint64_t pc;			/* valid if hung */
	int error;			/* errno of KVM_RUN, 0 for a strange exit */

	uint64_t emulated;	/* accesses to the tested slot that KVM_RUN ended with */
	struct row read;	/* which reads these were, by their numbers in the race */
	struct row written;

	bool spinning;
	bool spin_writes;
};

/* Makes the vCPU; fatal on failure. */
void vcpu_create(struct vm *vm, struct vcpu *vcpu, unsigned int id);

/*
 * What it is told that its CPU does to tables of stage 1 by itself, by ID_AA64MMFR1_EL1.HAFDBS:
 * nothing (0), or this, or more. Not while it runs; fatal on failure.
 */
#define HAFDBS_AF	1
#define HAFDBS_DIRTY	2
unsigned int vcpu_hafdbs(const struct vcpu *vcpu);

/* Starts its thread, once all vCPUs are made. Its payload parks at once. */
void vcpu_start(struct vcpu *vcpu);

/* 0 if it is parked and does not spin, else -1 with an error as the reply. */
int vcpu_check_idle(const struct vcpu *vcpu);
/* The same of all vCPUs of a VM. */
int vcpus_check_idle(const struct vm *vm);

/* Runs a vCPU that has no thread in this one until it parks; false if it does not, for its state. */
bool vcpu_run_here(struct vcpu *vcpu);

/*
 * Resets a parked vCPU as a VMM does when its guest starts anew (a second KVM_ARM_VCPU_INIT): it
 * begins at the payload's first instruction when it is restarted. Fatal on failure.
 */
void vcpu_reset(struct vcpu *vcpu);

/* Has it run from there until it is parked again, as vcpu_wait_parked(). */
int vcpu_restart(struct vcpu *vcpu, double seconds);

/* Closes what vcpu_create() opened, for a vCPU without a thread. */
void vcpu_destroy(struct vcpu *vcpu);

/* Gives it a command on the first @count entries of its list, for when it runs next. */
void vcpu_tell(struct vcpu *vcpu, enum mailbox_command command, uint32_t count, uint64_t value);

/* The same, and lets its thread go. A held one waits in the guest before its first touch. */
void vcpu_go(struct vcpu *vcpu, enum mailbox_command command, uint32_t count, uint64_t value);

/*
 * Waits until it is parked, @seconds at most; then it is kicked out. Returns 0,
 * or -1 with an error as the reply.
 */
int vcpu_wait_parked(struct vcpu *vcpu, double seconds);

/* Has it wait so when it goes the next time, until @pause microseconds after its release. */
void vcpu_hold(struct vcpu *vcpu, uint32_t pause);
void vcpu_release(struct vcpu *vcpu);

/* Waits in the same way until it does, having gone. */
int vcpu_wait_held(struct vcpu *vcpu, double seconds);

/* Waits in the same way until it has made @touches since it was let go. */
int vcpu_wait_touches(struct vcpu *vcpu, uint64_t touches, double seconds);

/* Whether it was let go and has not parked or failed since. */
bool vcpu_is_running(const struct vcpu *vcpu);

/* How many of its accesses to the tested slot were made for it, since KVM had no memory there. */
uint64_t vcpu_emulated(const struct vcpu *vcpu);

/* How many touches it has made since it was let go. Does not disturb it. */
uint64_t vcpu_touches(const struct vcpu *vcpu);

#endif
