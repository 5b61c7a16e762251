// SPDX-License-Identifier: GPL-2.0-only
/*
 * Makes and ends VMs, many in a short time: what one of them leaves behind is
 * small, what hundreds leave is not. One after the other they have the same memory of the
 * kernel, as a crowd each has its own.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "array_size.h"
#include "commands.h"
#include "reply.h"
#include "second.h"

#define MAX_CHURN 100000
/* pKVM's hypervisor knows of 255 VMs at once (KVM_MAX_PVMS). */
#define MAX_CROWD 240
/* Changes of each kind that the slot of a VM goes through. */
#define SLOT_CHANGES 4

static int make_idle(struct vm *vm, uint32_t *made)
{
	int fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, vm_type(vm));

	if (fd < 0)
		return reply_errno("KVM_CREATE_VM");
	close(fd);
	++*made;
	return 0;
}

/* pKVM of Linux 6.12 takes no heed of the size, and makes a VM. */
static int make_too_large(struct vm *vm, uint32_t *made)
{
	int bits = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE);
	int fd;

	if (bits <= 0)
		return reply_errno("KVM_CAP_ARM_VM_IPA_SIZE");
	fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, KVM_VM_TYPE_ARM_IPA_SIZE(bits + 1));
	if (fd < 0)
		return errno == EINVAL ? 0 : reply_errno("KVM_CREATE_VM");
	close(fd);
	++*made;
	return 0;
}

/* KVM finds out only when all of the vCPU is made that the VM has its number already. */
static int make_vcpu_twice(const struct vm *second)
{
	if (ioctl(second->fd, KVM_CREATE_VCPU, 0) < 0 && errno == EEXIST)
		return 0;
	return reply_errno("KVM_CREATE_VCPU of a vCPU that is there");
}

static int use(struct vm *second, bool dirty_log)
{
	if (make_vcpu_twice(second) || second_reads_all(second))
		return -1;
	if (dirty_log && vm_set_dirty_log(second, true))
		return reply_errno("KVM_SET_USER_MEMORY_REGION");
	if (dirty_log && second->ring) {
		/* Its ring has the pages of the payload then that it writes to. */
		if (second_reads_all(second))
			return -1;
		ring_harvest(&second->vcpus[0], second->ring);
	}
	return 0;
}

static int change_slot(const struct vm *second)
{
	return vm_set_slot_flags(second, KVM_MEM_LOG_DIRTY_PAGES) ||
	       vm_set_slot_flags(second, 0) ||
	       vm_move_slot(second, SECOND_SLOT_IPA) ||
	       vm_move_slot(second, vm_slot_ipa(second)) ||
	       vm_delete_slot(second) ||
	       vm_set_slot_flags(second, 0);
}

static int change_slots(struct vm *second, bool dirty_log)
{
	(void)dirty_log;
	for (int i = 0; i < SLOT_CHANGES; i++) {
		if (second_reads_all(second))
			return -1;
		if (change_slot(second))
			return reply_errno("KVM_SET_USER_MEMORY_REGION");
	}
	return second_reads_all(second);
}

static int make(struct vm *vm, uint32_t *made, int (*act)(struct vm *second, bool dirty_log))
{
	struct vm second;
	int result;

	vm_create_second(&second, vm, 1);
	result = act(&second, vm->dirty_log);
	vm_close_vcpus(&second);
	vm_close(&second);
	++*made;
	return result;
}

static int make_run(struct vm *vm, uint32_t *made)
{
	return make(vm, made, use);
}

static int make_slots(struct vm *vm, uint32_t *made)
{
	return make(vm, made, change_slots);
}

/* The VM of a process that ends without closing it: its memory goes first. */
static int make_owner(struct vm *vm, uint32_t *made)
{
	pid_t child = fork();
	int status;

	if (child < 0)
		return reply_errno("fork");
	if (!child)
		_exit(ioctl(vm->kvm_fd, KVM_CREATE_VM, vm_type(vm)) < 0 ? errno : 0);
	if (waitpid(child, &status, 0) != child)
		return reply_errno("waitpid");
	if (!WIFEXITED(status))
		return reply_error("system", "the owner of a VM died of signal %d", WTERMSIG(status));
	errno = WEXITSTATUS(status);
	if (errno)
		return reply_errno("KVM_CREATE_VM");
	++*made;
	return 0;
}

/* It never runs, and is there until the VM ends, although nothing refers to it. */
static int add_idle_vcpu(const struct vm *vm)
{
	int fd = ioctl(vm->fd, KVM_CREATE_VCPU, vm->vcpu_count);

	if (fd < 0)
		return reply_errno("KVM_CREATE_VCPU");
	close(fd);
	return 0;
}

int command_crowd(struct vm *vm, char **words)
{
	uint32_t count, made = 0;
	struct vm *crowd;
	int result = 0;

	if (parse_number(words[0], MAX_CROWD + 1, "COUNT", &count))
		return -1;
	crowd = calloc(count, sizeof(*crowd));
	if (!crowd)
		die("out of memory");
	while (!result && made < count) {
		vm_create_second(&crowd[made], vm, 1);
		result = add_idle_vcpu(&crowd[made]);
		if (!result)
			result = second_reads_all(&crowd[made]);
		made++;
	}
	for (uint32_t i = 0; i < made; i++) {
		vm_close_vcpus(&crowd[i]);
		vm_close(&crowd[i]);
	}
	free(crowd);
	if (!result)
		reply_ok(" asked=%u made=%u", count, made);
	return result;
}

static const struct {
	const char *name;
	int (*make)(struct vm *vm, uint32_t *made);
} kinds[] = {
	{ "idle", make_idle },
	{ "run", make_run },
	{ "slots", make_slots },
	{ "owner", make_owner },
	{ "too-large", make_too_large },
};

int command_churn(struct vm *vm, char **words)
{
	uint32_t count, made = 0;

	if (parse_number(words[0], MAX_CHURN, "COUNT", &count))
		return -1;
	for (size_t kind = 0; kind < ARRAY_SIZE(kinds); kind++) {
		if (strcmp(words[1], kinds[kind].name))
			continue;
		for (uint32_t i = 0; i < count; i++)
			if (kinds[kind].make(vm, &made))
				return -1;
		reply_ok(" asked=%u made=%u", count, made);
		return 0;
	}
	return reply_error("usage", "expected: churn COUNT idle|run|slots|owner|too-large");
}
