// SPDX-License-Identifier: GPL-2.0-only
#include "vcpu.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "reply.h"
#include "stage1.h"
#include "vm.h"

#define CORE_REG(member) \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(member))

/* EL1 with its own stack pointer, all interrupts masked. */
#define PSTATE_EL1H_DAIF 0x3c5

#define INSTRUCTION_SIZE 4

/* How often a vCPU is run again while its dirty ring is full. */
#define FULL_RUNS 2

/* How long a vCPU may take to leave KVM_RUN when kicked, in seconds. */
#define KICK_PATIENCE 2.0

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t stopped;	/* some vCPU's state is no longer VCPU_RUNNING */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Its arrival is all that matters: it interrupts KVM_RUN. */
static void on_kick(int signum)
{
	(void)signum;
}

static void init_once(void)
{
	struct sigaction action = { .sa_handler = on_kick };
	pthread_condattr_t monotonic;

	sigaction(SIGUSR1, &action, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&stopped, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

static struct timespec in_seconds(double seconds)
{
	struct timespec at;
	long whole = seconds;

	clock_gettime(CLOCK_MONOTONIC, &at);
	at.tv_sec += whole;
	at.tv_nsec += (seconds - whole) * 1e9;
	if (at.tv_nsec >= 1000000000) {
		at.tv_nsec -= 1000000000;
		at.tv_sec++;
	}
	return at;
}

static bool is_past(struct timespec at)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > at.tv_sec || (now.tv_sec == at.tv_sec && now.tv_nsec >= at.tv_nsec);
}

static uint64_t get_register(const struct vcpu *vcpu, uint64_t id)
{
	uint64_t value = 0;
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)&value };

	if (ioctl(vcpu->fd, KVM_GET_ONE_REG, &reg))
		die_errno("KVM_GET_ONE_REG");
	return value;
}

static void set_register(const struct vcpu *vcpu, uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = { .id = id, .addr = (uintptr_t)&value };

	if (ioctl(vcpu->fd, KVM_SET_ONE_REG, &reg))
		die_errno("KVM_SET_ONE_REG");
}

/*
 * Does what the guest tried to do where KVM has no memory for it (none at all, or
 * none to write to): the content is there all the same. False if it was something
 * else, or if the slot should have been there.
 */
static bool emulate(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint64_t slot = vm_slot_ipa(vcpu->vm), offset = run->mmio.phys_addr - slot, value;
	uint64_t *at = (uint64_t *)(vcpu->vm->slot + offset);

	if (!vcpu->vm->unruly || run->exit_reason != KVM_EXIT_MMIO ||
	    run->mmio.phys_addr < slot || run->mmio.len != sizeof(value) ||
	    offset >= (uint64_t)vcpu->vm->pages << GUEST_PAGE_SHIFT)
		return false;
	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, sizeof(value));
		__atomic_store_n(at, value, __ATOMIC_SEQ_CST);
		row_extend(&vcpu->written, vcpu->mailbox->writes.begun);
	} else {
		value = __atomic_load_n(at, __ATOMIC_SEQ_CST);
		memcpy(run->mmio.data, &value, sizeof(value));
		row_extend(&vcpu->read, vcpu->mailbox->reads.begun);
	}
	__atomic_add_fetch(&vcpu->emulated, 1, __ATOMIC_SEQ_CST);
	return true;
}

/*
 * A store to a page of the read-only slot comes here instead of to memory: with
 * the value that the guest was told to write there, or something is wrong.
 */
static enum vcpu_state judge_store(struct vcpu *vcpu, uint64_t ipa, uint64_t value)
{
	struct vm *vm = vcpu->vm;
	uint64_t slot = vm_slot_ipa(vm), page = (ipa - slot) >> GUEST_PAGE_SHIFT;

	if (!vm->readonly || ipa < slot || page >= vm->pages || ipa % GUEST_PAGE_SIZE ||
	    value != vcpu->mailbox->value + page)
		return VCPU_FAILED;
	__atomic_store_n(&vm->refused[page], true, __ATOMIC_RELAXED);
	return VCPU_RUNNING;
}

/*
 * KVM_RUN fails at a store to a page that this process itself may not write, and
 * nothing is written. Has the guest go on behind the store; false if it was none.
 */
static bool skip_store(struct vcpu *vcpu)
{
	const struct mailbox *mailbox = vcpu->mailbox;
	const struct vm *vm = vcpu->vm;
	uint64_t page = mailbox->page;

	if (mailbox->command != MAILBOX_WRITE || page >= vm->pages || !vm->unwritable ||
	    !vm->unwritable[page])
		return false;
	__atomic_store_n(&vm->refused[page], true, __ATOMIC_RELAXED);
	set_register(vcpu, CORE_REG(regs.pc),
		     get_register(vcpu, CORE_REG(regs.pc)) + INSTRUCTION_SIZE);
	return true;
}

static bool is_kicked(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->kicked, __ATOMIC_ACQUIRE);
}

static bool is_full(const struct vcpu *vcpu)
{
	return vcpu->ring.gfns && vcpu->run->exit_reason == KVM_EXIT_DIRTY_RING_FULL;
}

/* Which state a return from KVM_RUN means; VCPU_RUNNING: enter it again. */
static enum vcpu_state judge_exit(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	uint64_t value;

	if (emulate(vcpu))
		return VCPU_RUNNING;
	if (is_full(vcpu)) {
		/* Newer kernels end a reset early at a signal. KVM_RUN sees the kick. */
		return ring_make_room(vcpu) || is_kicked(vcpu) ? VCPU_RUNNING : VCPU_FAILED;
	}
	if (run->exit_reason != KVM_EXIT_MMIO || !run->mmio.is_write ||
	    run->mmio.len != sizeof(value))
		return VCPU_FAILED;
	memcpy(&value, run->mmio.data, sizeof(value));
	if (run->mmio.phys_addr != REPORT_IPA)
		return judge_store(vcpu, run->mmio.phys_addr, value);
	return value == REPORT_PARKED ? VCPU_PARKED : VCPU_EXCEPTION;
}

/*
 * KVM_RUN; when it ends since the vCPU's dirty ring is full, again with the ring as it is, as by a
 * VMM that does not care: KVM must not enter the guest.
 */
static int run(struct vcpu *vcpu)
{
	int result = ioctl(vcpu->fd, KVM_RUN, NULL), error;
	uint64_t before;

	if (result || !is_full(vcpu))
		return result;
	before = vcpu_stats_exits(&vcpu->stats);
	for (int i = 0; i < FULL_RUNS && !result && is_full(vcpu); i++)
		result = ioctl(vcpu->fd, KVM_RUN, NULL);
	error = errno;
	ring_note_entered(vcpu, vcpu_stats_exits(&vcpu->stats) - before);
	errno = error;
	return result;
}

static enum vcpu_state run_until_stopped(struct vcpu *vcpu)
{
	for (;;) {
		vcpu->error = 0;
		if (vcpu->ring.gfns)
			ring_enter(vcpu);
		if (!run(vcpu)) {
			enum vcpu_state state = judge_exit(vcpu);

			if (state != VCPU_RUNNING)
				return state;
			continue;
		}
		if (errno == EFAULT && skip_store(vcpu))
			continue;
		if (errno != EINTR) {
			vcpu->error = errno;
			return VCPU_FAILED;
		}
		if (is_kicked(vcpu)) {
			vcpu->pc = get_register(vcpu, CORE_REG(regs.pc));
			return VCPU_HUNG;
		}
	}
}

static void *vcpu_thread(void *argument)
{
	struct vcpu *vcpu = argument;

	pthread_mutex_lock(&lock);
	vcpu->tid = gettid();
	for (;;) {
		enum vcpu_state state;

		while (vcpu->state != VCPU_RUNNING)
			pthread_cond_wait(&vcpu->go, &lock);
		pthread_mutex_unlock(&lock);
		state = run_until_stopped(vcpu);
		pthread_mutex_lock(&lock);
		vcpu->state = state;
		pthread_cond_broadcast(&stopped);
	}
	return NULL;
}

static void setup_registers(const struct vcpu *vcpu)
{
	set_register(vcpu, CORE_REG(regs.pc), PAYLOAD_IPA);
	set_register(vcpu, CORE_REG(regs.regs[0]), vcpu->mailbox_ipa);
	set_register(vcpu, CORE_REG(regs.pstate), PSTATE_EL1H_DAIF);
	set_register(vcpu, ARM64_SYS_REG(3, 0, 10, 2, 0), STAGE1_MAIR);
	set_register(vcpu, ARM64_SYS_REG(3, 0, 2, 0, 2), STAGE1_TCR);
	set_register(vcpu, ARM64_SYS_REG(3, 0, 2, 0, 0),
		     vm_payload_ipa(vcpu->vm) + STAGE1_OFFSET);
	set_register(vcpu, ARM64_SYS_REG(3, 0, 1, 0, 0), STAGE1_SCTLR);
}

static void place(struct vm *vm, struct vcpu *vcpu)
{
	uint64_t offset = VCPUS_OFFSET + vcpu->id * vm_vcpu_part(vm->pages);

	vcpu->mailbox = (void *)(vm->payload + offset);
	vcpu->mailbox->slot = vm_view_address(vm, vcpu->id);
	vcpu->mailbox->slot_ipa = vm_view_ipa(vm, vcpu->id);
	vcpu->mailbox->update = UPDATE_ADDRESS + ((uint64_t)vcpu->id << UPDATE_SHIFT);
	vcpu->mailbox->walk = WALK_ADDRESS + ((uint64_t)vcpu->id << GIB_SHIFT);
	vcpu->mailbox_ipa = PAYLOAD_IPA + offset;
	vcpu->list = (void *)(vm->payload + offset + LIST_OFFSET);
	vcpu->list_ipa = PAYLOAD_IPA + offset + LIST_OFFSET;
	vcpu->records = (void *)(vm->payload + offset + vm_records_offset(vm->pages));
	vcpu->records_ipa = PAYLOAD_IPA + offset + vm_records_offset(vm->pages);
}

static void init(const struct vcpu *vcpu)
{
	struct kvm_vcpu_init init;

	if (ioctl(vcpu->vm->fd, KVM_ARM_PREFERRED_TARGET, &init))
		die_errno("KVM_ARM_PREFERRED_TARGET");
	if (ioctl(vcpu->fd, KVM_ARM_VCPU_INIT, &init))
		die_errno("KVM_ARM_VCPU_INIT");
}

void vcpu_create(struct vm *vm, struct vcpu *vcpu, unsigned int id)
{
	int size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);

	pthread_once(&once, init_once);
	vcpu->vm = vm;
	vcpu->id = id;
	vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, id);
	if (size < 0 || vcpu->fd < 0)
		die_errno("KVM_CREATE_VCPU");
	vcpu->run_size = size;
	vcpu->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED)
		die_errno("mmap of kvm_run");
	ring_map(vcpu);
	init(vcpu);
	place(vm, vcpu);
	setup_registers(vcpu);
	vcpu_stats_open(&vcpu->stats, vcpu->fd);
}

unsigned int vcpu_hafdbs(const struct vcpu *vcpu)
{
	return get_register(vcpu, ARM64_SYS_REG(3, 0, 0, 7, 1)) & 0xf;
}

void vcpu_reset(struct vcpu *vcpu)
{
	/*
	 * Its report is a store that KVM has yet to put behind it, which the next KVM_RUN does
	 * first: that must not skip the first instruction after the reset.
	 */
	vcpu->run->immediate_exit = 1;
	if (!ioctl(vcpu->fd, KVM_RUN, NULL) || errno != EINTR)
		die_errno("KVM_RUN that is to end at once");
	vcpu->run->immediate_exit = 0;
	init(vcpu);
	setup_registers(vcpu);
}

bool vcpu_run_here(struct vcpu *vcpu)
{
	vcpu->state = run_until_stopped(vcpu);
	return vcpu->state == VCPU_PARKED;
}

void vcpu_destroy(struct vcpu *vcpu)
{
	ring_unmap(vcpu);
	munmap(vcpu->run, vcpu->run_size);
	close(vcpu->stats.fd);
	close(vcpu->fd);
}

void vcpu_start(struct vcpu *vcpu)
{
	vcpu->state = VCPU_RUNNING;
	pthread_cond_init(&vcpu->go, NULL);
	errno = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);
	if (errno)
		die_errno("pthread_create");
}

static enum vcpu_state state_of(const struct vcpu *vcpu)
{
	enum vcpu_state state;

	pthread_mutex_lock(&lock);
	state = vcpu->state;
	pthread_mutex_unlock(&lock);
	return state;
}

bool vcpu_is_running(const struct vcpu *vcpu)
{
	return state_of(vcpu) == VCPU_RUNNING;
}

/* The reply for a vCPU that is not parked and does not run. */
static int reply_stopped(const struct vcpu *vcpu)
{
	const struct mailbox *mailbox = vcpu->mailbox;

	switch (state_of(vcpu)) {
	case VCPU_HUNG:
		return reply_error("hung", "vcpu=%u pc=0x%" PRIx64 " page=%" PRIu64
				   " touches=%" PRIu64, vcpu->id, vcpu->pc, mailbox->page,
				   mailbox->touches);
	case VCPU_LOST:
		return reply_error("hung", "vcpu=%u pc=unknown page=%" PRIu64
				   " touches=%" PRIu64, vcpu->id, mailbox->page,
				   mailbox->touches);
	case VCPU_EXCEPTION:
		return reply_error("guest", "vcpu=%u exception esr=0x%" PRIx64 " elr=0x%" PRIx64
				   " far=0x%" PRIx64 " page=%" PRIu64, vcpu->id, mailbox->esr,
				   mailbox->elr, mailbox->far, mailbox->page);
	default:
		break;
	}
	if (vcpu->error)
		return reply_error("guest", "vcpu=%u KVM_RUN: %s (errno %d) page=%" PRIu64,
				   vcpu->id, strerror(vcpu->error), vcpu->error, mailbox->page);
	return reply_error("guest", "vcpu=%u KVM_RUN ended with exit_reason=%u page=%" PRIu64,
			   vcpu->id, vcpu->run->exit_reason, mailbox->page);
}

int vcpu_check_idle(const struct vcpu *vcpu)
{
	if (vcpu->spinning)
		return reply_error("usage", "vcpu %u is spinning", vcpu->id);
	if (state_of(vcpu) != VCPU_PARKED)
		return reply_stopped(vcpu);
	return 0;
}

int vcpus_check_idle(const struct vm *vm)
{
	for (unsigned int i = 0; i < vm->vcpu_count; i++) {
		if (vcpu_check_idle(&vm->vcpus[i]))
			return -1;
	}
	return 0;
}

void vcpu_tell(struct vcpu *vcpu, enum mailbox_command command, uint32_t count, uint64_t value)
{
	struct mailbox *mailbox = vcpu->mailbox;

	mailbox->command = command;
	mailbox->list = vcpu->list_ipa;
	mailbox->count = count;
	mailbox->value = value;
	mailbox->stop = 0;
	mailbox->touches = 0;
	mailbox->check = 0;
	mailbox->page = count ? vcpu->list[0] : 0;
	for (uint32_t i = 0; count && i < LIST_TAIL; i++)
		vcpu->list[count + i] = vcpu->list[count - 1];
}

static void let_go(struct vcpu *vcpu)
{
	pthread_mutex_lock(&lock);
	vcpu->state = VCPU_RUNNING;
	pthread_cond_signal(&vcpu->go);
	pthread_mutex_unlock(&lock);
}

void vcpu_go(struct vcpu *vcpu, enum mailbox_command command, uint32_t count, uint64_t value)
{
	vcpu_tell(vcpu, command, count, value);
	vcpu->before = vcpu_stats_read(&vcpu->stats);
	let_go(vcpu);
}

int vcpu_restart(struct vcpu *vcpu, double seconds)
{
	let_go(vcpu);
	return vcpu_wait_parked(vcpu, seconds);
}

/* Waits with the lock held; false if it still runs when time is up. */
static bool wait_stopped(const struct vcpu *vcpu, double seconds)
{
	struct timespec until = in_seconds(seconds);

	while (vcpu->state == VCPU_RUNNING) {
		if (pthread_cond_timedwait(&stopped, &lock, &until) == ETIMEDOUT)
			break;
	}
	return vcpu->state != VCPU_RUNNING;
}

/*
 * Makes KVM_RUN return, with the lock held. immediate_exit closes the gap
 * between the thread's look at `kicked` and its next KVM_RUN.
 */
static void kick(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->kicked, true, __ATOMIC_RELEASE);
	vcpu->run->immediate_exit = 1;
	pthread_kill(vcpu->thread, SIGUSR1);
	if (!wait_stopped(vcpu, KICK_PATIENCE))
		vcpu->state = VCPU_LOST;
}

int vcpu_wait_parked(struct vcpu *vcpu, double seconds)
{
	bool parked;

	pthread_mutex_lock(&lock);
	if (!wait_stopped(vcpu, seconds))
		kick(vcpu);
	parked = vcpu->state == VCPU_PARKED;
	pthread_mutex_unlock(&lock);
	return parked ? 0 : reply_stopped(vcpu);
}

/* Waits until its payload has brought a count of its mailbox up to @least. */
static int wait_for(struct vcpu *vcpu, const uint64_t *count, uint64_t least, double seconds)
{
	const struct timespec moment = { .tv_nsec = 20000 };
	struct timespec until = in_seconds(seconds);

	while (__atomic_load_n(count, __ATOMIC_ACQUIRE) < least) {
		if (state_of(vcpu) != VCPU_RUNNING)
			return reply_stopped(vcpu);
		if (is_past(until))
			return vcpu_wait_parked(vcpu, 0);
		nanosleep(&moment, NULL);
	}
	return 0;
}

void vcpu_hold(struct vcpu *vcpu, uint32_t pause)
{
	vcpu->mailbox->pause = pause;
	vcpu->mailbox->waits = 0;
	vcpu->mailbox->held = 1;
}

void vcpu_release(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->mailbox->held, 0, __ATOMIC_RELEASE);
}

int vcpu_wait_held(struct vcpu *vcpu, double seconds)
{
	return wait_for(vcpu, &vcpu->mailbox->waits, 1, seconds);
}

int vcpu_wait_touches(struct vcpu *vcpu, uint64_t touches, double seconds)
{
	return wait_for(vcpu, &vcpu->mailbox->touches, touches, seconds);
}

uint64_t vcpu_emulated(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->emulated, __ATOMIC_SEQ_CST);
}

uint64_t vcpu_touches(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->mailbox->touches, __ATOMIC_ACQUIRE);
}
