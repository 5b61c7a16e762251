// SPDX-License-Identifier: GPL-2.0-only
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "payload_blob.h"
#include "reply.h"
#include "stage1.h"

/* KVM's default size of the guest's physical address space, in bits. */
#define DEFAULT_IPA_BITS 40
/* The most that stage 2 has with pages of 4 KiB, unless there is FEAT_LPA2. */
#define MAX_IPA_BITS 48
/* What PAYLOAD_IPA needs, its vCPUs' parts included; what --far does, and --wide. */
#define MIN_IPA_BITS 36
#define MIN_FAR_IPA_BITS 40
#define MIN_WIDE_IPA_BITS 41

/* Newer than the headers of Debian 12. */
#ifndef KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE
#define KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE 228
#define KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES 229
#endif

static void open_kvm(struct vm *vm)
{
	int version;

	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0 && errno == ENOENT)
		die("/dev/kvm is missing: the running kernel has no KVM, or no EL2 to run it in");
	if (vm->kvm_fd < 0)
		die_errno("/dev/kvm");
	version = ioctl(vm->kvm_fd, KVM_GET_API_VERSION, NULL);
	if (version != KVM_API_VERSION)
		die("KVM_GET_API_VERSION is %d, not %d", version, KVM_API_VERSION);
}

/* Before there are memslots. */
static void split_eagerly(const struct vm *vm)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE,
		.args = { vm->split_chunk },
	};
	int sizes = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_ARM_SUPPORTED_BLOCK_SIZES);

	if (sizes <= 0)
		die("this kernel splits no blocks eagerly");
	if (!((uint64_t)sizes & vm->split_chunk))
		die("this kernel splits no blocks eagerly by %" PRIu64 " bytes", vm->split_chunk);
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &cap))
		die_errno("KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE");
}

unsigned long vm_type(const struct vm *vm)
{
	return vm->ipa_bits == DEFAULT_IPA_BITS ? 0 : KVM_VM_TYPE_ARM_IPA_SIZE(vm->ipa_bits);
}

static void create_vm(struct vm *vm)
{
	int bits = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE);
	int most = vm->wide ? MAX_IPA_BITS : DEFAULT_IPA_BITS;
	int needed = MIN_IPA_BITS;

	if (vm->far)
		needed = vm->wide ? MIN_WIDE_IPA_BITS : MIN_FAR_IPA_BITS;
	if (bits <= 0)
		bits = DEFAULT_IPA_BITS;
	if (bits > most)
		bits = most;
	if (bits < needed)
		die("this CPU gives guests %d bits of physical address; %d are needed", bits,
		    needed);
	vm->ipa_bits = bits;
	vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, vm_type(vm));
	if (vm->fd < 0)
		die_errno("KVM_CREATE_VM");
	if (vm->split_chunk)
		split_eagerly(vm);
}

/* Before the dirty log is switched on. */
static void clear_log_by_hand(const struct vm *vm)
{
	bool all_set = vm->manual_log == MANUAL_LOG_SET;
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
		.args = { KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE |
			  (all_set ? KVM_DIRTY_LOG_INITIALLY_SET : 0) },
	};
	int can = ioctl(vm->fd, KVM_CHECK_EXTENSION, cap.cap);

	if (can < 0 || cap.args[0] & ~can)
		die("this kernel has no such manual dirty log");
	if (ioctl(vm->fd, KVM_ENABLE_CAP, &cap))
		die_errno("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2");
}

static uint64_t slot_size(const struct vm *vm)
{
	return (uint64_t)vm->pages << GUEST_PAGE_SHIFT;
}

uint64_t vm_slot_ipa(const struct vm *vm)
{
	uint64_t skew = (uint64_t)vm->ipa_skew << GUEST_PAGE_SHIFT;

	if (vm->far)
		return skew + (1UL << (vm->ipa_bits - 1)) - slot_size(vm) / 2;
	return skew + (vm->low ? 0 : SLOT_IPA);
}

uint64_t vm_payload_ipa(const struct vm *vm)
{
	return vm->far ? 3UL << (vm->ipa_bits - 2) : PAYLOAD_IPA;
}

static bool has_second_slot(const struct vm *vm)
{
	return vm->second == SECOND_SLOT || vm->second == SECOND_ABOVE;
}

uint64_t vm_second_ipa(const struct vm *vm)
{
	if (vm->second == SECOND_ABOVE)
		return vm_slot_ipa(vm) + slot_size(vm);
	return vm->second == SECOND_SLOT ? SECOND_SLOT_IPA : vm_slot_ipa(vm);
}

/* In the GiBs from SLOT_IPA on, wherever it really is. */
static uint64_t slot_address(const struct vm *vm)
{
	return SLOT_IPA + (vm_slot_ipa(vm) & ((1UL << GIB_SHIFT) - 1));
}

uint64_t vm_view_address(const struct vm *vm, unsigned int vcpu)
{
	if (!vcpu || !has_second_slot(vm))
		return slot_address(vm);
	return vm->second == SECOND_SLOT ? SECOND_SLOT_IPA : slot_address(vm) + slot_size(vm);
}

uint64_t vm_view_ipa(const struct vm *vm, unsigned int vcpu)
{
	return vcpu ? vm_second_ipa(vm) : vm_slot_ipa(vm);
}

static int set_region(const struct vm *vm, enum slot number, uint64_t ipa, uint64_t size,
		      const char *memory, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = number,
		.flags = flags,
		.guest_phys_addr = ipa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)memory,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

static int set_slot(const struct vm *vm, uint64_t ipa, uint64_t size, uint32_t flags)
{
	return set_region(vm, SLOT_TESTED, ipa, size, vm->slot,
			  flags | (vm->readonly ? KVM_MEM_READONLY : 0));
}

int vm_set_second_slot(const struct vm *vm, uint64_t ipa, uint64_t size)
{
	return set_region(vm, SLOT_SECOND, ipa, size, vm->slot, 0);
}

static int set_second_slot(const struct vm *vm, uint32_t flags)
{
	return set_region(vm, SLOT_SECOND, vm_second_ipa(vm), slot_size(vm), vm->second_slot,
			  flags);
}

int vm_set_slot_flags(const struct vm *vm, uint32_t flags)
{
	return set_slot(vm, vm_slot_ipa(vm), slot_size(vm), flags);
}

static int set_payload_slot(const struct vm *vm, uint32_t flags)
{
	return set_region(vm, SLOT_PAYLOAD, vm_payload_ipa(vm), vm->payload_size, vm->payload,
			  flags);
}

int vm_set_dirty_log(const struct vm *vm, bool on)
{
	uint32_t flags = on ? KVM_MEM_LOG_DIRTY_PAGES : 0;

	if (vm_set_slot_flags(vm, flags))
		return -1;
	return vm->ring ? set_payload_slot(vm, flags) : 0;
}

int vm_log_and_stop(const struct vm *vm)
{
	if (vm_set_slot_flags(vm, KVM_MEM_LOG_DIRTY_PAGES) || vm_set_slot_flags(vm, 0))
		return -1;
	if (has_second_slot(vm))
		return set_second_slot(vm, KVM_MEM_LOG_DIRTY_PAGES) || set_second_slot(vm, 0) ?
		       -1 : 0;
	return vm->other ? vm_log_and_stop(vm->other) : 0;
}

int vm_move_slot(const struct vm *vm, uint64_t ipa)
{
	return set_slot(vm, ipa, slot_size(vm), vm->dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0);
}

int vm_delete_slot(const struct vm *vm)
{
	return set_slot(vm, vm_slot_ipa(vm), 0, 0);
}

int vm_get_dirty_log(const struct vm *vm, uint64_t *bitmap)
{
	struct kvm_dirty_log log = { .slot = SLOT_TESTED, .dirty_bitmap = bitmap };

	return ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log);
}

int vm_clear_dirty_log(const struct vm *vm, uint64_t *bitmap, uint32_t first, uint32_t count)
{
	struct kvm_clear_dirty_log log = {
		.slot = SLOT_TESTED,
		.first_page = first,
		.num_pages = count,
		.dirty_bitmap = bitmap,
	};

	return ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &log);
}

uint64_t vm_unused_entry(const struct vm *vm)
{
	return stage1_unused_page(vm_payload_ipa(vm) + (SCRATCH_OFFSET & -GUEST_PAGE_SIZE));
}

static size_t whole_pages(size_t size)
{
	return (size + GUEST_PAGE_SIZE - 1) & ~(size_t)(GUEST_PAGE_SIZE - 1);
}

size_t vm_records_offset(uint32_t pages)
{
	return LIST_OFFSET + whole_pages(((size_t)pages + LIST_TAIL) * sizeof(uint32_t));
}

size_t vm_vcpu_part(uint32_t pages)
{
	return vm_records_offset(pages) + whole_pages((size_t)pages * sizeof(struct record));
}

size_t vm_drops_offset(const struct vm *vm)
{
	return VCPUS_OFFSET + vm->vcpu_count * vm_vcpu_part(vm->pages);
}

/* The tested pages as that vCPU has them, for loads and stores, and for fetches. */
static void map_view(const struct vm *vm, uint64_t *stage1, unsigned int vcpu)
{
	uint64_t address = vm_view_address(vm, vcpu), ipa = vm_view_ipa(vm, vcpu);

	stage1_map(stage1, address, ipa, slot_size(vm), false);
	stage1_map(stage1, address + FETCH_OFFSET, ipa, slot_size(vm), true);
}

static void create_payload(struct vm *vm)
{
	uint64_t *stage1;

	vm->payload_size = vm_drops_offset(vm) +
			   whole_pages((size_t)vm->pages * sizeof(struct drops));
	vm->payload = mmap(NULL, vm->payload_size, PROT_READ | PROT_WRITE,
			   (vm->shared_payload ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
	if (vm->payload == MAP_FAILED)
		die_errno("mmap of the payload's slot");
	/* Only to keep huge pages out of the picture: a kernel without any refuses. */
	madvise(vm->payload, vm->payload_size, MADV_NOHUGEPAGE);
	memcpy(vm->payload, payload_start, payload_end - payload_start);
	stage1 = (void *)(vm->payload + STAGE1_OFFSET);
	stage1_map_report(stage1);
	map_view(vm, stage1, 0);
	map_view(vm, stage1, 1);
	stage1_map(stage1, PAYLOAD_IPA, vm_payload_ipa(vm), vm->payload_size, true);
	stage1_set_table(stage1, UPDATE_ADDRESS, vm_payload_ipa(vm) + UPDATE_TABLE_OFFSET);

	if (set_payload_slot(vm, 0))
		die_errno("KVM_SET_USER_MEMORY_REGION of the payload's slot");
}

/* The memory under the skewed ends is mapped too: huge pages come whole. */
static char *map_slot(const struct vm *vm)
{
	size_t skew = (size_t)vm->skew << GUEST_PAGE_SHIFT;
	size_t size = skew + ((size_t)vm->pages << GUEST_PAGE_SHIFT);
	size_t page_size = backing_page_size(vm->backing);

	size = (size + page_size - 1) & ~(page_size - 1);
	return (char *)backing_map(vm->backing, size, vm->file) + skew;
}

/* Another VM, yet without a vCPU, with the tested pages of @vm where @vm has them. */
static void create_like(struct vm *other, const struct vm *vm, char *slot, unsigned int vcpus)
{
	*other = (struct vm){
		.pages = vm->pages,
		.ipa_skew = vm->ipa_skew,
		.far = vm->far,
		.low = vm->low,
		.wide = vm->wide,
		.split_chunk = vm->split_chunk,
		.ring = vm->ring,
		.vcpu_count = vcpus,
		.kvm_fd = vm->kvm_fd,
		.slot = slot,
	};
	create_vm(other);
	if (other->ring)
		ring_enable(other);
	if (vm_set_slot_flags(other, 0))
		die_errno("KVM_SET_USER_MEMORY_REGION of a second VM's tested slot");
	create_payload(other);
}

void vm_create_second(struct vm *second, const struct vm *vm, unsigned int vcpus)
{
	create_like(second, vm, vm->slot, vcpus);
	for (unsigned int i = 0; i < vcpus; i++)
		vcpu_create(second, &second->vcpus[i], i);
}

/*
 * Shared memory is mapped again, so that whoever looks for all mappings of a page finds two; of
 * private memory there can be no second one. An old size of 0 is what asks for that (mremap(2)).
 */
static char *map_again(const struct vm *vm)
{
	void *memory;

	if (!backing_is_shared(vm->backing))
		return vm->slot;
	memory = mremap(vm->slot, 0, slot_size(vm), MREMAP_MAYMOVE);
	if (memory == MAP_FAILED)
		die_errno("mremap of the tested slot");
	return memory;
}

static void create_second(struct vm *vm)
{
	static struct vm other;

	if (vm->second == SECOND_NONE)
		return;
	vm->second_slot = map_again(vm);
	if (vm->second == SECOND_VM) {
		/* Of its vCPUs those are made that @vm does not have. */
		create_like(&other, vm, vm->second_slot, vm->vcpu_count);
		vm->other = &other;
	} else if (set_second_slot(vm, 0)) {
		die_errno("KVM_SET_USER_MEMORY_REGION of the second slot");
	}
}

void vm_close_vcpus(struct vm *second)
{
	for (unsigned int i = 0; i < second->vcpu_count; i++)
		vcpu_destroy(&second->vcpus[i]);
}

void vm_close(struct vm *second)
{
	close(second->fd);
	munmap(second->payload, second->payload_size);
}

void vm_make(struct vm *vm)
{
	open_kvm(vm);
	create_vm(vm);
	if (vm->manual_log)
		clear_log_by_hand(vm);
	if (vm->ring)
		ring_enable(vm);
	vm->slot = map_slot(vm);
	vm->expected = calloc(vm->pages, sizeof(*vm->expected));
	vm->write_spins = calloc(vm->pages, sizeof(*vm->write_spins));
	vm->unwritable = calloc(vm->pages, sizeof(*vm->unwritable));
	vm->refused = calloc(vm->pages, sizeof(*vm->refused));
	if (!vm->expected || !vm->write_spins || !vm->unwritable || !vm->refused)
		die("out of memory");
	if (vm_set_slot_flags(vm, 0))
		die_errno("KVM_SET_USER_MEMORY_REGION of the tested slot");
	create_payload(vm);
	create_second(vm);
	/*
	 * pKVM tells the hypervisor of a VM's vCPUs when the first of them runs. In
	 * Linux 6.12, KVM_RUN of one made later never enters the guest nor returns.
	 */
	for (unsigned int i = 0; i < vm->vcpu_count; i++)
		vcpu_create(i && vm->other ? vm->other : vm, &vm->vcpus[i], i);
}

void vm_create(struct vm *vm)
{
	vm_make(vm);
	for (unsigned int i = 0; i < vm->vcpu_count; i++) {
		vcpu_start(&vm->vcpus[i]);
		if (vcpu_wait_parked(&vm->vcpus[i], vm->timeout)) {
			reply_send();	/* it says why the payload did not start */
			_exit(EXIT_FAILURE);
		}
	}
}
