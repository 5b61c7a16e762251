/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtual machine: two memslots, or three, and its vCPUs. */
#ifndef VM_H
#define VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backing.h"
#include "vcpu.h"

#define MAX_PAGES (1U << 20)
#define MAX_VCPUS 16U

/* By what other way vCPUs but the first have the tested pages. */
enum second {
	SECOND_NONE,
	SECOND_SLOT,	/* another memslot */
	SECOND_ABOVE,	/* the same, directly above the first */
	SECOND_VM,	/* another VM, to which these vCPUs belong */
};

/* Who clears the dirty log, and what is in it at first. */
enum manual_log {
	MANUAL_LOG_NONE,	/* whoever reads it; nothing */
	MANUAL_LOG_CLEAR,	/* "clear-log"; nothing */
	MANUAL_LOG_SET,		/* "clear-log"; all pages */
};

enum slot {
	SLOT_TESTED,
	SLOT_PAYLOAD,
	SLOT_SECOND,
};

struct vm {
	/* As asked for on the command line. */
	enum backing backing;
	const char *file;	/* of a backing that is one */
	uint32_t pages;
	uint32_t skew;		/* pages between a multiple of 2 MiB and the slot's memory */
	uint32_t ipa_skew;	/* the same of its IPA */
	bool far;		/* the tested pages lie across the middle of all addresses */
	bool low;		/* they begin at address 0 */
	bool wide;		/* as far, of as many bits of address as the host can give it */
	uint64_t split_chunk;	/* the dirty log splits all blocks by so many bytes; 0: it does not */
	bool shared_payload;	/* its memory is not private: nobody reaps it */
	enum manual_log manual_log;
	uint32_t ring;		/* entries of each vCPU's dirty ring; 0: there is none */
	enum second second;
	unsigned int vcpu_count;
	double timeout;		/* seconds that one command may take */

	int kvm_fd;
	int fd;
	int ipa_bits;		/* of the guest's physical addresses */
	char *slot;		/* the tested pages, as this process sees them */
	char *second_slot;	/* those of the second memslot or VM: the same, or mapped again */
	struct vm *other;	/* the second VM */
	char *payload;
	size_t payload_size;
	struct vcpu vcpus[MAX_VCPUS];

	bool unruly;		/* the tested slot may be gone or read-only: see vcpu.c */
	uint64_t ring_harvested;	/* entries of all rings since the VM was made */
	uint64_t ring_resets;		/* those that KVM has reset, by its own count */
	bool dirty_log;		/* KVM_MEM_LOG_DIRTY_PAGES is set on the tested slot */
	bool readonly;		/* KVM_MEM_READONLY is */
	bool slot_off;		/* the tested slot was deleted, and not made anew */
	bool *unwritable;	/* pages that this process may not write: see mprotect.c */
	bool *refused;		/* pages of which a store did not reach memory */
	uint32_t sequence;	/* counts commands that write */
	uint64_t *expected;	/* what the first word of each tested page must hold */
	uint8_t *write_spins;	/* how many vCPUs spin on each page with writes */
};

/* Bytes of the payload's slot that each vCPU takes. */
size_t vm_vcpu_part(uint32_t pages);

/* Where a vCPU's records begin in its part, and where the drops begin in the payload's slot. */
size_t vm_records_offset(uint32_t pages);
size_t vm_drops_offset(const struct vm *vm);

/* Where this process has a tested page, or, beyond the last one, the end of the slot. */
static inline char *vm_page(const struct vm *vm, uint32_t page)
{
	return vm->slot + ((size_t)page << GUEST_PAGE_SHIFT);
}

/* Where the tested slot begins in the guest, and where the payload's. */
uint64_t vm_slot_ipa(const struct vm *vm);
uint64_t vm_payload_ipa(const struct vm *vm);
/* The same of the tested pages as the vCPUs see them that have them by another way. */
uint64_t vm_second_ipa(const struct vm *vm);
/* What "plant" puts into tested pages for their CPU to change. */
uint64_t vm_unused_entry(const struct vm *vm);
/* The guest's address, before its own translation, of the tested pages as this vCPU has them. */
uint64_t vm_view_address(const struct vm *vm, unsigned int vcpu);
/* What that translation makes of it. */
uint64_t vm_view_ipa(const struct vm *vm, unsigned int vcpu);

/*
 * Makes another VM of so many vCPUs, without threads, with the tested pages of @vm, and with
 * dirty rings as it has; fatal on failure. It is gone when its vCPUs are closed and then it is.
 */
void vm_create_second(struct vm *second, const struct vm *vm, unsigned int vcpus);
void vm_close_vcpus(struct vm *second);
void vm_close(struct vm *second);

/* What KVM_CREATE_VM is to be asked for, for a VM with as many bits of address as @vm has. */
unsigned long vm_type(const struct vm *vm);

/* Makes the machine, whose vCPUs have no threads yet; fatal on failure. */
void vm_make(struct vm *vm);

/* Makes the machine and waits until all vCPUs are parked; fatal on failure. */
void vm_create(struct vm *vm);

/*
 * KVM_SET_USER_MEMORY_REGION for the tested slot with @flags, and with
 * KVM_MEM_READONLY if it is read-only; -1 with errno.
 */
int vm_set_slot_flags(const struct vm *vm, uint32_t flags);
/* The same with the slot at @ipa, and its dirty log on if it is. */
int vm_move_slot(const struct vm *vm, uint64_t ipa);
/* A slot of the first tested pages, where there is no second one; of size 0, none any more. */
int vm_set_second_slot(const struct vm *vm, uint64_t ipa, uint64_t size);
/*
 * Switches the dirty log of the tested slot, and of the payload's where there are dirty rings: then
 * these have pages of two slots; -1 with errno.
 */
int vm_set_dirty_log(const struct vm *vm, bool on);
/* Sets and clears KVM_MEM_LOG_DIRTY_PAGES wherever the tested pages are; -1 with errno. */
int vm_log_and_stop(const struct vm *vm);
/* Deletes the tested slot; vm_set_slot_flags() makes it again. -1 with errno. */
int vm_delete_slot(const struct vm *vm);

/* KVM_GET_DIRTY_LOG of the tested slot into a bitmap; -1 with errno. */
int vm_get_dirty_log(const struct vm *vm, uint64_t *bitmap);
/*
 * KVM_CLEAR_DIRTY_LOG of what the bitmap has of the @count pages from @first on, both multiples
 * of 64 but at the slot's end; -1 with errno.
 */
int vm_clear_dirty_log(const struct vm *vm, uint64_t *bitmap, uint32_t first, uint32_t count);

#endif
