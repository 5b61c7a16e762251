// SPDX-License-Identifier: GPL-2.0-only
#include "ring.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "reply.h"
#include "vm.h"

/* Newer than the headers of Debian 12, or not of arm64 there. */
#ifndef KVM_CAP_DIRTY_LOG_RING_ACQ_REL
#define KVM_CAP_DIRTY_LOG_RING_ACQ_REL 223
#endif
#ifndef KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP
#define KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP 225
#endif
#define RING_PAGE_OFFSET 64	/* KVM_DIRTY_LOG_PAGE_OFFSET of arm64 */

/*
 * A vCPU's thread harvests too, when its ring is full. Where KVM never comes back from a reset
 * the commands wait here without end, as they would in KVM: for no reply the harness waits so long.
 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t ring_size(const struct vm *vm)
{
	return vm->ring * sizeof(struct kvm_dirty_gfn);
}

void ring_enable(const struct vm *vm)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
		.args = { ring_size(vm) },
	};
	int can = ioctl(vm->fd, KVM_CHECK_EXTENSION, cap.cap);

	if (can <= 0 || (size_t)can < ring_size(vm))
		die("this kernel has no such dirty ring");
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &cap))
		die_errno("KVM_CAP_DIRTY_LOG_RING_ACQ_REL");
	cap = (struct kvm_enable_cap){ .cap = KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP };
	if (ioctl(vm->fd, KVM_CHECK_EXTENSION, cap.cap) <= 0)
		return;
	/* For what is written while no vCPU runs, as VMMs have it. */
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &cap))
		die_errno("KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP");
}

void ring_map(struct vcpu *vcpu)
{
	const struct vm *vm = vcpu->vm;

	if (!vm->ring)
		return;
	vcpu->ring.gfns = mmap(NULL, ring_size(vm), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd,
			       RING_PAGE_OFFSET * GUEST_PAGE_SIZE);
	if (vcpu->ring.gfns == MAP_FAILED)
		die_errno("mmap of a dirty ring");
	vcpu->ring.dirty = calloc(vm->pages, sizeof(*vcpu->ring.dirty));
	if (!vcpu->ring.dirty)
		die("out of memory");
}

void ring_unmap(struct vcpu *vcpu)
{
	if (!vcpu->ring.gfns)
		return;
	munmap(vcpu->ring.gfns, ring_size(vcpu->vm));
	free(vcpu->ring.dirty);
}

static void note(const struct vm *vm, struct ring *ring, uint32_t slot, uint64_t offset)
{
	ring->taken++;
	if (slot == SLOT_PAYLOAD && offset < vm->payload_size >> GUEST_PAGE_SHIFT)
		ring->others++;
	else if (slot == SLOT_TESTED && offset < vm->pages)
		ring->dirty[offset] = true;
	else
		ring->strange++;
}

static void harvest(struct vcpu *vcpu, uint32_t most)
{
	struct ring *ring = &vcpu->ring;

	for (; most; most--) {
		struct kvm_dirty_gfn *gfn = &ring->gfns[ring->next % vcpu->vm->ring];

		/* With the RESET bit it is one that was harvested and yet is to be reset. */
		if (__atomic_load_n(&gfn->flags, __ATOMIC_ACQUIRE) != KVM_DIRTY_GFN_F_DIRTY)
			return;
		note(vcpu->vm, ring, gfn->slot, gfn->offset);
		__atomic_store_n(&gfn->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		ring->next++;
		vcpu->vm->ring_harvested++;
	}
}

void ring_harvest(struct vcpu *vcpu, uint32_t most)
{
	pthread_mutex_lock(&lock);
	harvest(vcpu, most);
	pthread_mutex_unlock(&lock);
}

void ring_forget(struct vcpu *vcpu, struct ring *since, bool *dirty)
{
	struct ring *ring = &vcpu->ring;
	size_t size = vcpu->vm->pages * sizeof(*dirty);

	pthread_mutex_lock(&lock);
	*since = *ring;
	memcpy(dirty, ring->dirty, size);
	memset(ring->dirty, 0, size);
	ring->taken = 0;
	ring->others = 0;
	ring->strange = 0;
	ring->full = 0;
	ring->entered = 0;
	pthread_mutex_unlock(&lock);
}

static int reset(struct vm *vm)
{
	int count = ioctl(vm->fd, KVM_RESET_DIRTY_RINGS);

	if (count > 0)
		vm->ring_resets += count;
	return count;
}

int ring_reset(struct vm *vm, uint64_t *harvested, uint64_t *resets)
{
	int count;

	pthread_mutex_lock(&lock);
	count = reset(vm);
	*harvested = vm->ring_harvested;
	*resets = vm->ring_resets;
	pthread_mutex_unlock(&lock);
	return count < 0 ? -1 : 0;
}

/* Changes whenever an entry of that ring is harvested, or one of any ring is reset. */
static uint64_t progress(const struct vcpu *vcpu)
{
	return vcpu->ring.next + vcpu->vm->ring_resets;
}

void ring_enter(struct vcpu *vcpu)
{
	pthread_mutex_lock(&lock);
	vcpu->ring.before = progress(vcpu);
	pthread_mutex_unlock(&lock);
}

void ring_note_entered(struct vcpu *vcpu, uint64_t entered)
{
	pthread_mutex_lock(&lock);
	if (progress(vcpu) == vcpu->ring.before)
		vcpu->ring.entered += entered;
	pthread_mutex_unlock(&lock);
}

bool ring_make_room(struct vcpu *vcpu)
{
	bool made;

	pthread_mutex_lock(&lock);
	harvest(vcpu, vcpu->vm->ring);
	vcpu->ring.full++;
	reset(vcpu->vm);
	made = progress(vcpu) != vcpu->ring.before;
	pthread_mutex_unlock(&lock);
	return made;
}
