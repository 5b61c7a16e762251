/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A vCPU's dirty ring (KVM_CAP_DIRTY_LOG_RING_ACQ_REL): KVM enters each page that the vCPU
 * makes writable for itself, whoever looks harvests them in that order, and a reset takes
 * write permission from what was harvested.
 */
#ifndef RING_H
#define RING_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

struct vcpu;
struct vm;

/* The fewest entries: a page of them. */
#define RING_MIN 256U
/* The most that KVM allows. */
#define RING_MAX 65536U

struct ring {
	struct kvm_dirty_gfn *gfns;	/* NULL: the VM has no rings */
	uint32_t next;			/* counts the entries harvested since it was made */
	uint64_t before;		/* what ring_make_room() has to get on from */

	/* Since ring_forget(). */
	bool *dirty;			/* the tested pages among those harvested */
	uint32_t taken;			/* entries harvested */
	uint32_t others;		/* those of other slots among them */
	uint32_t strange;		/* those that name no page of a slot that is logged */
	uint32_t full;			/* how often KVM_RUN ended since the ring was full */
	uint32_t entered;		/* how often the guest was entered all the same */
};

/* Gives the vCPUs that @vm is to have a ring each; before its memslots; fatal on failure. */
void ring_enable(const struct vm *vm);

/* Maps a vCPU's ring if its VM has rings; fatal on failure. */
void ring_map(struct vcpu *vcpu);

/* Undoes it. KVM keeps a vCPU whose ring is mapped, and its VM. */
void ring_unmap(struct vcpu *vcpu);

/* Harvests @most entries at most. */
void ring_harvest(struct vcpu *vcpu, uint32_t most);

/* Copies what is known of harvested entries, and begins anew. @dirty is as long as the slot. */
void ring_forget(struct vcpu *vcpu, struct ring *since, bool *dirty);

/*
 * KVM_RESET_DIRTY_RINGS, and how many entries of all rings were harvested, and reset by KVM's own
 * count, since the VM was made; -1 with errno.
 */
int ring_reset(struct vm *vm, uint64_t *harvested, uint64_t *resets);

/* To be called before each KVM_RUN of a vCPU that has a ring. */
void ring_enter(struct vcpu *vcpu);

/*
 * To be called when KVM_RUN was called again while the ring was full, and the guest has left
 * @entered times by KVM's own count. Counts nothing if somebody has made room since ring_enter().
 */
void ring_note_entered(struct vcpu *vcpu, uint64_t entered);

/*
 * When KVM_RUN has ended since the ring is full: makes room in it. False if neither this nor
 * another thread has harvested from it or reset anything since ring_enter().
 */
bool ring_make_room(struct vcpu *vcpu);

#endif
