// SPDX-License-Identifier: GPL-2.0-only
/* A vCPU that touches pages over and over and has no cause to leave the guest. */
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <string.h>

#include "commands.h"
#include "reply.h"

#define MAX_CPUS 1024
#define MAX_WAIT 1000000000

/* All spins write the same, so that two on one page do not race. */
#define SPIN_VALUE (0xffffffffULL << 32)

static void start_writing(struct vm *vm, const struct vcpu *vcpu, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint32_t page = vcpu->list[i];

		vm->expected[page] = SPIN_VALUE + page;
		vm->write_spins[page]++;
	}
}

static void stop_writing(struct vm *vm, const struct vcpu *vcpu)
{
	for (uint64_t i = 0; i < vcpu->mailbox->count; i++)
		vm->write_spins[vcpu->list[i]]--;
}

static int reply_spin(const struct vcpu *vcpu)
{
	reply_ok(" vcpu=%u touches=%" PRIu64, vcpu->id, vcpu_touches(vcpu));
	vcpu_stats_print_since(&vcpu->stats, vcpu->before);
	return 0;
}

int command_spin(struct vm *vm, char **words)
{
	bool write = !strcmp(words[0], "write");
	struct vcpu *vcpu;
	uint32_t count;

	if (!write && strcmp(words[0], "read"))
		return reply_error("usage", "a spin must be read or write");
	if (parse_task(vm, words + 1, &vcpu, &count))
		return -1;
	if (!count)
		return reply_error("usage", "RANGES: a spin needs a page");
	if (write && vm->readonly)
		return reply_error("usage", "the slot is read-only");
	for (uint32_t i = 0; write && i < count; i++) {
		if (vm->unwritable[vcpu->list[i]])
			return reply_error("usage", "page %u is read-only", vcpu->list[i]);
	}
	vcpu_go(vcpu, write ? MAILBOX_SPIN_WRITE : MAILBOX_SPIN_READ, count, SPIN_VALUE);
	if (vcpu_wait_touches(vcpu, count, vm->timeout))
		return -1;
	vcpu->spinning = true;
	vcpu->spin_writes = write;
	if (write)
		start_writing(vm, vcpu, count);
	return reply_spin(vcpu);
}

static int find_spinning(struct vm *vm, const char *word, struct vcpu **vcpu)
{
	if (parse_vcpu(vm, word, vcpu))
		return -1;
	if (!(*vcpu)->spinning)
		return reply_error("usage", "vcpu %u is not spinning", (*vcpu)->id);
	return 0;
}

int command_spin_stop(struct vm *vm, char **words)
{
	struct vcpu *vcpu;

	if (find_spinning(vm, words[0], &vcpu))
		return -1;
	__atomic_store_n(&vcpu->mailbox->stop, 1, __ATOMIC_RELEASE);
	vcpu->spinning = false;
	if (vcpu->spin_writes)
		stop_writing(vm, vcpu);
	if (vcpu_wait_parked(vcpu, vm->timeout))
		return -1;
	return reply_spin(vcpu);
}

/*
 * A spin that ended by itself shows here too: its count no longer rises, and
 * spin-stop says why.
 */
int command_spin_count(struct vm *vm, char **words)
{
	struct vcpu *vcpu;

	if (find_spinning(vm, words[0], &vcpu))
		return -1;
	return reply_spin(vcpu);
}

/* Waits until it has made that many touches more, all of them after the command came. */
int command_spin_wait(struct vm *vm, char **words)
{
	struct vcpu *vcpu;
	uint32_t more;

	if (find_spinning(vm, words[0], &vcpu) ||
	    parse_number(words[1], MAX_WAIT, "TOUCHES", &more))
		return -1;
	/* One touch may be half done: it does not count. */
	if (vcpu_wait_touches(vcpu, vcpu_touches(vcpu) + 1 + more, vm->timeout))
		return -1;
	return reply_spin(vcpu);
}

/* What its last load read. After a spin-wait, that load began after the spin-wait came. */
int command_spin_value(struct vm *vm, char **words)
{
	struct vcpu *vcpu;

	if (find_spinning(vm, words[0], &vcpu))
		return -1;
	if (vcpu->spin_writes)
		return reply_error("usage", "vcpu %u spins with writes", vcpu->id);
	reply_ok(" vcpu=%u value=0x%" PRIx64, vcpu->id,
		 __atomic_load_n(&vcpu->mailbox->last, __ATOMIC_ACQUIRE));
	return 0;
}

/*
 * A thread of the fair class is not left alone even on a CPU of its own: from
 * Linux 6.12 on, the deadline server of that class interrupts it every second.
 * One of SCHED_FIFO is.
 */
int command_pin(struct vm *vm, char **words)
{
	struct sched_param param = { 0 };
	int policy = SCHED_OTHER;
	struct vcpu *vcpu;
	uint32_t cpu;
	cpu_set_t set;

	if (parse_vcpu(vm, words[0], &vcpu) || parse_number(words[1], MAX_CPUS, "CPU", &cpu))
		return -1;
	if (!strcmp(words[2], "fifo")) {
		policy = SCHED_FIFO;
		param.sched_priority = 1;
	} else if (strcmp(words[2], "other")) {
		return reply_error("usage", "expected: pin VCPU CPU other|fifo");
	}
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(vcpu->tid, sizeof(set), &set))
		return reply_errno("sched_setaffinity");
	if (sched_setscheduler(vcpu->tid, policy, &param))
		return reply_errno("sched_setscheduler");
	reply_ok(" vcpu=%u cpu=%u tid=%d", vcpu->id, cpu, vcpu->tid);
	return 0;
}
