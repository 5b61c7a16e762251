// SPDX-License-Identifier: GPL-2.0-only
/*
 * Aging, guest accesses and unmapping, all at once: vCPUs read and write random
 * pages, agers go over all of them by page_idle, and this thread takes random
 * ranges away. Each vCPU has a word of its own in each page and knows what must
 * be in it. See "A race" in docs/guest-protocol.md.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ager.h"
#include "array_size.h"
#include "commands.h"
#include "reply.h"

#define MAX_ROUNDS 100000
/* Few, so that there are more threads than CPUs, and those meet each other. */
#define MAX_CPUS 2
/* Touches that each vCPU must make between two rounds. */
#define PACE 4
/* Seconds that a vCPU has to park at the end, even if time is up. */
#define PARK_PATIENCE 2.0
#define SMALL_RANGE 12
/* About what a page takes an ager on an emulated host, in microseconds. */
#define AGING_TIME 100
/* Above the agers'. */
#define LEADER_PRIORITY 2

struct race {
	struct vm *vm;
	struct drops *drops;
	struct agers agers;
	unsigned int cpus;
	uint64_t random;
	double until;		/* of CLOCK_MONOTONIC, in seconds */
	uint64_t dropped;	/* pages taken away by MADV_DONTNEED, with repetition */
	uint64_t paged_out;	/* by MADV_PAGEOUT */
	uint64_t passes;	/* of all agers */
};

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static double left(const struct race *race)
{
	double seconds = race->until - now();

	return seconds > 0 ? seconds : 0;
}

static uint32_t random_below(struct race *race, uint32_t limit)
{
	race->random ^= race->random << 13;
	race->random ^= race->random >> 7;
	race->random ^= race->random << 17;
	return (race->random >> 16) % limit;
}

/* 0, or -1 with the reply if a vCPU has seen what it must not. */
static int check_faults(const struct race *race)
{
	static const char * const names[] = {
		[RACE_STALE] = "stale",
		[RACE_LOST] = "lost",
		[RACE_WRONG] = "wrong",
	};

	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		const struct vcpu *vcpu = &race->vm->vcpus[i];
		uint64_t fault = __atomic_load_n(&vcpu->mailbox->fault, __ATOMIC_ACQUIRE);
		uint64_t page = vcpu->mailbox->page;

		if (fault && fault < ARRAY_SIZE(names) && page < race->vm->pages)
			return reply_error("data", "%s vcpu=%u page=%" PRIu64
					   " expected=0x%" PRIx64 " got=0x%" PRIx64,
					   names[fault], vcpu->id, page,
					   vcpu->records[page].value, vcpu->mailbox->got);
	}
	return 0;
}

static void take_away(struct race *race, bool drop, uint32_t first, uint32_t count)
{
	char *start = race->vm->slot + ((size_t)first << GUEST_PAGE_SHIFT);
	size_t size = (size_t)count << GUEST_PAGE_SHIFT;

	if (!drop) {
		if (madvise(start, size, MADV_PAGEOUT))
			die_errno("madvise(MADV_PAGEOUT)");
		race->paged_out += count;
		return;
	}
	for (uint32_t page = first; page < first + count; page++)
		__atomic_add_fetch(&race->drops[page].begun, 1, __ATOMIC_SEQ_CST);
	if (madvise(start, size, MADV_DONTNEED))
		die_errno("madvise(MADV_DONTNEED)");
	for (uint32_t page = first; page < first + count; page++)
		__atomic_add_fetch(&race->drops[page].done, 1, __ATOMIC_SEQ_CST);
	race->dropped += count;
}

/*
 * Half of the ranges are one page, which an ager ages over and over: most likely
 * it is just between its load and its store when the entry goes. An eighth are
 * all pages, so that the tables go as well.
 */
static uint32_t pick_count(struct race *race)
{
	uint32_t kind = random_below(race, 8), pages = race->vm->pages;

	if (kind == 7)
		return pages;
	return kind < 4 ? 1 : 1 + random_below(race, SMALL_RANGE < pages ? SMALL_RANGE : pages);
}

/* Lets the ager get somewhere between its first page and its last. */
static void spin_for(double seconds)
{
	double until = now() + seconds;

	while (now() < until)
		;
}

/*
 * Takes some pages away. Either an ager has just begun to make them old, or all
 * have done so and the vCPU on the other CPU is free to take access faults, which
 * queue for the MMU lock behind the unmap and then find their entry gone. A large
 * range keeps that lock for longer. To swap out is slow: small ranges only.
 */
static int take_some(struct race *race)
{
	uint32_t pages = race->vm->pages;
	uint32_t count = pick_count(race);
	uint32_t first = random_below(race, pages - count + 1);
	bool drop = count > SMALL_RANGE || random_below(race, 4);
	bool again = random_below(race, 2);

	if (agers_send(&race->agers, first, count, again))
		return -1;
	if (again)
		spin_for(random_below(race, count * AGING_TIME) / 1e6);
	take_away(race, drop, first, count);
	agers_rest(&race->agers);
	return 0;
}

/* The first vCPU that is short of its goal, or NULL. */
static struct vcpu *find_behind(const struct race *race, const uint64_t *goals)
{
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		if (vcpu_touches(&race->vm->vcpus[i]) < goals[i])
			return &race->vm->vcpus[i];
	}
	return NULL;
}

/*
 * Each vCPU must get on, whatever the others do. To look more often would stop
 * the vCPU that runs on this CPU: on an emulated host, an interruption costs it
 * more than a touch.
 */
static int wait_for_progress(const struct race *race)
{
	const struct timespec moment = { .tv_nsec = 2000000 };
	uint64_t goals[MAX_VCPUS];
	struct vcpu *behind;

	for (unsigned int i = 0; i < race->vm->vcpu_count; i++)
		goals[i] = vcpu_touches(&race->vm->vcpus[i]) + PACE;
	while ((behind = find_behind(race, goals))) {
		if (vcpu_is_running(behind) && left(race) > 0)
			nanosleep(&moment, NULL);
		else if (vcpu_wait_touches(behind, goals[behind->id], 0))
			return -1;
	}
	return 0;
}

static int run_rounds(struct race *race, uint32_t rounds)
{
	for (uint32_t round = 0; round < rounds; round++) {
		if (take_some(race) || wait_for_progress(race))
			return -1;
	}
	return 0;
}

static void start_vcpu(struct race *race, struct vcpu *vcpu, enum mailbox_command command)
{
	struct vm *vm = race->vm;
	struct mailbox *mailbox = vcpu->mailbox;

	mailbox->records = vcpu->records_ipa;
	mailbox->drops = PAYLOAD_IPA + vm_drops_offset(vm);
	mailbox->word = (1 + vcpu->id) * sizeof(uint64_t);
	mailbox->seed = ((uint64_t)random_below(race, UINT32_MAX) << 32 | vcpu->id) | 1;
	mailbox->fault = 0;
	vcpu_go(vcpu, command, vm->pages, 0);
}

/* Ends the vCPUs' command; -1 with the reply if one saw what it must not, or hangs. */
static int end_vcpus(struct race *race, int failed)
{
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		struct vcpu *vcpu = &race->vm->vcpus[i];

		if (vcpu_wait_parked(vcpu, left(race) + PARK_PATIENCE))
			failed = -1;
	}
	/* It outranks a vCPU that made no progress, since it parks at once. */
	return check_faults(race) ? -1 : failed;
}

static void stop_vcpus(const struct race *race)
{
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++)
		__atomic_store_n(&race->vm->vcpus[i].mailbox->stop, 1, __ATOMIC_RELEASE);
}

static uint64_t word_at(const char *at)
{
	return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
}

/* What the VMM sees must be what the vCPU that wrote it knows. */
static int check_own_view(const struct race *race, const struct vcpu *vcpu)
{
	for (uint32_t page = 0; page < race->vm->pages; page++) {
		const char *at = race->vm->slot + ((size_t)page << GUEST_PAGE_SHIFT);
		const struct record *record = &vcpu->records[page];
		uint64_t got = word_at(at + vcpu->mailbox->word);

		if (got != record->value)
			return reply_error("data", "apart vcpu=%u page=%u expected=0x%" PRIx64
					   " got=0x%" PRIx64, vcpu->id, page, record->value, got);
	}
	return 0;
}

/* All is quiet: every vCPU looks at all of its words, then the VMM does. */
static int check_at_end(struct race *race)
{
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++)
		start_vcpu(race, &race->vm->vcpus[i], MAILBOX_RACE_CHECK);
	if (end_vcpus(race, 0))
		return -1;
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		if (check_own_view(race, &race->vm->vcpus[i]))
			return -1;
	}
	return 0;
}

static int reset(struct race *race)
{
	struct vm *vm = race->vm;

	for (unsigned int i = 0; i < vm->vcpu_count; i++) {
		if (vcpu_check_idle(&vm->vcpus[i]))
			return -1;
		if (bind_to_cpu(vm->vcpus[i].thread, i % race->cpus))
			return reply_errno("pthread_setaffinity_np");
		memset(vm->vcpus[i].records, 0, vm->pages * sizeof(struct record));
		vm->vcpus[i].mailbox->dropped = 0;
	}
	/* Starts from pages that hold nothing. */
	memset(race->drops, 0, vm->pages * sizeof(*race->drops));
	memset(vm->expected, 0, vm->pages * sizeof(*vm->expected));
	if (madvise(vm->slot, (size_t)vm->pages << GUEST_PAGE_SHIFT, MADV_DONTNEED))
		return reply_errno("madvise");
	return 0;
}

static int race_all(struct race *race, uint32_t rounds, uint32_t agers)
{
	struct vm *vm = race->vm;
	cpu_set_t anywhere;
	int failed;

	for (unsigned int i = 0; i < vm->vcpu_count; i++)
		start_vcpu(race, &vm->vcpus[i], MAILBOX_RACE);
	agers_start(&race->agers, vm, agers, race->cpus);
	/* This thread leads: it must be there when the agers have done their part. */
	errno = pthread_getaffinity_np(pthread_self(), sizeof(anywhere), &anywhere);
	if (errno || bind_to_cpu(pthread_self(), 0) || set_priority(pthread_self(), LEADER_PRIORITY))
		die_errno("the thread that leads a race");
	failed = run_rounds(race, rounds);
	if (set_priority(pthread_self(), 0))
		die_errno("pthread_setschedparam");
	errno = pthread_setaffinity_np(pthread_self(), sizeof(anywhere), &anywhere);
	if (errno)
		die_errno("pthread_setaffinity_np");
	race->passes = agers_stop(&race->agers);
	stop_vcpus(race);
	return end_vcpus(race, failed);
}

static void reply_race(const struct race *race, uint32_t rounds, uint64_t touches, uint64_t least)
{
	uint64_t found = 0;

	for (unsigned int i = 0; i < race->vm->vcpu_count; i++)
		found += race->vm->vcpus[i].mailbox->dropped;
	reply_ok(" rounds=%u dropped=%" PRIu64 " paged_out=%" PRIu64, rounds, race->dropped,
		 race->paged_out);
	fprintf(reply, " touches=%" PRIu64 " least=%" PRIu64 " found=%" PRIu64, touches, least,
		found);
	fprintf(reply, " passes=%" PRIu64, race->passes);
}

int command_race(struct vm *vm, char **words)
{
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	struct race race = {
		.vm = vm,
		.drops = (void *)(vm->payload + vm_drops_offset(vm)),
		.cpus = online < MAX_CPUS ? online : MAX_CPUS,
		.until = now() + vm->timeout,
	};
	uint64_t touches = 0, least = UINT64_MAX;
	uint32_t seed, rounds, agers;

	if (parse_number(words[0], UINT32_MAX, "SEED", &seed) ||
	    parse_number(words[1], MAX_ROUNDS, "ROUNDS", &rounds) ||
	    parse_number(words[2], MAX_AGERS + 1, "AGERS", &agers))
		return -1;
	if (vm->backing != BACKING_ANON)
		return reply_error("usage", "only anonymous memory can be dropped under a race");
	race.random = (uint64_t)seed << 1 | 1;
	if (reset(&race) || race_all(&race, rounds, agers))
		return -1;
	for (unsigned int i = 0; i < vm->vcpu_count; i++) {
		uint64_t made = vcpu_touches(&vm->vcpus[i]);

		touches += made;
		least = made < least ? made : least;
	}
	if (check_at_end(&race))
		return -1;
	reply_race(&race, rounds, touches, least);
	return 0;
}
