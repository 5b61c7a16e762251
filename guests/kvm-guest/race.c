// SPDX-License-Identifier: GPL-2.0-only
/*
 * Aging, guest accesses and an opponent, all at once: vCPUs read and write random
 * pages, agers make them old, and this thread does what the opponent does. Each
 * vCPU has a word of its own in each page and knows what must be in it. See
 * "A race" in docs/guest-protocol.md.
 */
#include "race.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "array_size.h"
#include "commands.h"
#include "cpus.h"
#include "now.h"
#include "reply.h"
#include "threads.h"

#define MAX_ROUNDS 100000
/* Touches that each vCPU must make between two rounds. */
#define PACE 4
/*
 * Parts of --timeout: a race that is not over then is slow, and a vCPU that makes no
 * touch for so long is hung. What is left is for the others to park.
 */
#define RACE_TIME (2.0 / 3)
#define PATIENCE (1.0 / 6)
/* Seconds that a vCPU has to park when something has failed. */
#define PARK_PATIENCE 2.0
#define SMALL_RANGE 12
/* About what a page takes an ager on an emulated host, in microseconds. */
#define AGING_TIME 100
#define AGER_PRIORITY 1
/* Three quarters of a CPU that a vCPU wants too: the rest is enough for it to get on. */
#define AGER_NICE (-5)
#define LEADER_PRIORITY 2
/* Of the instance that harness/observe/trace.py makes. */
#define MARKER "/sys/kernel/tracing/instances/kvm-harness/trace_marker"

static double left(const struct race *race)
{
	double seconds = race->until - now();

	return seconds > 0 ? seconds : 0;
}

uint32_t random_below(uint64_t *state, uint32_t limit)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 16) % limit;
}

uint32_t race_random(struct race *race, uint32_t limit)
{
	return random_below(&race->random, limit);
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

/* Without a trace that records, nobody wants to know. */
static void mark(const struct race *race, enum race_mark what, uint32_t first, uint32_t count)
{
	uintptr_t start = (uintptr_t)vm_page(race->vm, first);
	char text[64];
	int size = snprintf(text, sizeof(text), "kvm-guest: %d 0x%lx 0x%lx\n", what, start,
			    start + ((uintptr_t)count << GUEST_PAGE_SHIFT));

	if (race->marker >= 0 && write(race->marker, text, size) < 0 && errno != EBADF)
		die_errno("write to " MARKER);
}

void race_begin(struct race *race, enum race_mark what, uint32_t first, uint32_t count)
{
	mark(race, what, first, count);
	race->begun = now();
}

void race_end(struct race *race, uint32_t first, uint32_t count)
{
	int error = errno;	/* of the call that has just been made */
	double seconds = now() - race->begun;

	mark(race, RACE_END, first, count);
	race->counts.acts++;
	race->counts.seconds += seconds;
	if (seconds > race->counts.slowest)
		race->counts.slowest = seconds;
	errno = error;
}

/* @before are pages of the same memory that lie before these. */
static void drop(struct race *race, uint32_t before, uint32_t first, uint32_t count, bool marked)
{
	char *end = vm_page(race->vm, first + count);
	size_t size = (size_t)(before + count) << GUEST_PAGE_SHIFT;

	for (uint32_t page = first; page < first + count; page++)
		__atomic_add_fetch(&race->drops[page].begun, 1, __ATOMIC_SEQ_CST);
	if (marked)
		race_begin(race, RACE_ACT, first, count);
	if (madvise(end - size, size, MADV_DONTNEED))
		die_errno("madvise(MADV_DONTNEED)");
	if (marked)
		race_end(race, first, count);
	for (uint32_t page = first; page < first + count; page++)
		__atomic_add_fetch(&race->drops[page].done, 1, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&race->counts.dropped, count, __ATOMIC_RELAXED);
}

void race_drop(struct race *race, uint32_t first, uint32_t count, bool marked)
{
	drop(race, 0, first, count, marked);
}

void race_drop_with_skew(struct race *race, uint32_t count)
{
	drop(race, race->vm->skew, 0, count, true);
}

/*
 * Half of the ranges are one page, which an ager ages over and over: most likely
 * it is just between its load and its store when the entry goes. An eighth are
 * all pages, so that the tables go as well. An ager that goes over all pages
 * meets those more often, and a huge page is aged by its first one.
 */
static uint32_t pick_count(struct race *race)
{
	uint32_t kind = race_random(race, 8), pages = race->vm->pages;

	if (kind == 7 || (kind > 3 && race->agers.kind != AGER_PAGE_IDLE) ||
	    race->opponent->whole)
		return pages;
	return kind < 4 ? 1 : 1 + race_random(race, SMALL_RANGE < pages ? SMALL_RANGE : pages);
}

/*
 * Lets the ager get somewhere between its first page and its last. Who waits for
 * others must let them run; who does not has no time to lose.
 */
static void delay(struct race *race, uint32_t count)
{
	uint32_t span = race->agers.kind == AGER_PAGE_IDLE ? count : race->vm->pages;
	uint32_t microseconds = race_random(race, span * AGING_TIME);
	double until = now() + microseconds / 1e6;

	if (race->opponent->waits)
		usleep(microseconds);
	while (now() < until)
		;
}

/*
 * How many agers go on while the opponent acts. Where several can, it is not always all
 * of them: an ager with a real-time priority leaves the vCPU of its CPU no time, and on
 * the others' a vCPU can run beside an ager and the opponent.
 */
static uint32_t pick_agers(struct race *race)
{
	uint32_t most = race->agers.lasting;

	if (race->opponent->timed)
		return most;
	if (!race_random(race, race->opponent->waits ? 4 : 2))
		return 0;
	return most > 1 ? 1 + race_random(race, most) : 1;
}

/*
 * Lets the opponent act. Either agers have just begun to make pages old, or all
 * have done so and vCPUs on other CPUs are free to take access faults, which
 * may queue for the MMU lock behind the opponent and then find their entry gone.
 */
static int act(struct race *race)
{
	uint32_t pages = race->vm->pages;
	uint32_t count = pick_count(race);
	uint32_t first = race_random(race, pages - count + 1);
	uint32_t again = pick_agers(race);
	int result;

	if (agers_send(&race->agers, first, count, again))
		return -1;
	if (again)
		delay(race, count);
	result = race->opponent->act(race, first, count);
	agers_rest(&race->agers);
	return result;
}

/* Time is up although all get on: no kernel is to blame for a slow machine. */
static int reply_slow(const struct race *race)
{
	return reply_error("slow", "a race against %s was not over in %.0f s, but no vCPU hung",
			   race->opponent->name, race->vm->timeout * RACE_TIME);
}

/*
 * Waits until a vCPU has made so many touches, or runs no longer. It is hung, and
 * kicked out, if it makes none for too long. To look more often would stop the vCPU
 * that runs on this CPU: on an emulated host, an interruption costs it more than a
 * touch.
 */
static int wait_vcpu(const struct race *race, struct vcpu *vcpu, uint64_t goal)
{
	const struct timespec moment = { .tv_nsec = 2000000 };
	uint64_t first = vcpu_touches(vcpu), seen = first, made;
	double since = now();

	while ((made = vcpu_touches(vcpu)) < goal && vcpu_is_running(vcpu)) {
		if (made != seen)
			since = now();
		seen = made;
		if (now() - since > race->patience)
			return vcpu_wait_parked(vcpu, 0);
		if (made != first && left(race) <= 0)
			return reply_slow(race);
		nanosleep(&moment, NULL);
	}
	return 0;
}

/* Each vCPU must get on, whatever the others do. */
int race_wait_touches(struct race *race, uint64_t touches)
{
	uint64_t goals[MAX_VCPUS];

	for (unsigned int i = 0; i < race->vm->vcpu_count; i++)
		goals[i] = vcpu_touches(&race->vm->vcpus[i]) + touches;
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		struct vcpu *vcpu = &race->vm->vcpus[i];

		if (wait_vcpu(race, vcpu, goals[i]))
			return -1;
		/* None parks of its own accord, unless it saw what it must not. */
		if (vcpu_touches(vcpu) < goals[i])
			return vcpu_wait_touches(vcpu, goals[i], 0);
	}
	return 0;
}

static int run_rounds(struct race *race, uint32_t rounds)
{
	for (uint32_t round = 0; round < rounds; round++) {
		if (act(race) || race_wait_touches(race, PACE))
			return -1;
		if (left(race) <= 0)
			return reply_slow(race);
	}
	return race->opponent->finish ? race->opponent->finish(race) : 0;
}

static void start_vcpu(struct race *race, struct vcpu *vcpu, enum mailbox_command command)
{
	struct vm *vm = race->vm;
	struct mailbox *mailbox = vcpu->mailbox;

	mailbox->records = vcpu->records_ipa;
	mailbox->drops = PAYLOAD_IPA + vm_drops_offset(vm);
	mailbox->word = (1 + vcpu->id) * sizeof(uint64_t);
	mailbox->seed = ((uint64_t)race_random(race, UINT32_MAX) << 32 | vcpu->id) | 1;
	mailbox->fault = 0;
	vcpu_go(vcpu, command, vm->pages, race->before[vcpu->id]);
}

static void stop_vcpus(const struct race *race)
{
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++)
		__atomic_store_n(&race->vm->vcpus[i].mailbox->stop, 1, __ATOMIC_RELEASE);
}

/*
 * Waits for the vCPUs to end their command; -1 with the reply if one saw what it
 * must not, hangs, or is not through in time. What has failed already is told,
 * unless a vCPU hangs.
 */
static int end_vcpus(struct race *race, int failed)
{
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		struct vcpu *vcpu = &race->vm->vcpus[i];

		if (!failed && wait_vcpu(race, vcpu, UINT64_MAX)) {
			failed = -1;
			stop_vcpus(race);
		}
		if (vcpu_wait_parked(vcpu, failed ? PARK_PATIENCE : race->patience))
			failed = -1;
	}
	/* It outranks a vCPU that made no progress, since it parks at once. */
	return check_faults(race) ? -1 : failed;
}

int race_pause(struct race *race)
{
	stop_vcpus(race);
	if (end_vcpus(race, 0))
		return -1;
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++)
		race->before[i] += vcpu_touches(&race->vm->vcpus[i]);
	return 0;
}

void race_resume(struct race *race)
{
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++)
		start_vcpu(race, &race->vm->vcpus[i], MAILBOX_RACE);
}

static uint64_t word_at(const char *at)
{
	return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
}

/* What the VMM sees must be what the vCPU that wrote it knows. */
static int check_own_view(const struct race *race, const struct vcpu *vcpu)
{
	for (uint32_t page = 0; page < race->vm->pages; page++) {
		const char *at = vm_page(race->vm, page);
		const struct record *record = &vcpu->records[page];
		uint64_t got = word_at(at + vcpu->mailbox->word);

		if (got != record->value)
			return reply_error("data", "apart vcpu=%u page=%u expected=0x%" PRIx64
					   " got=0x%" PRIx64, vcpu->id, page, record->value, got);
	}
	return 0;
}

/*
 * All is quiet: every vCPU looks at all of its words, then the VMM does. Since
 * aging is over and no translation is cached, this makes every page young.
 */
static int check_at_end(struct race *race)
{
	if (vm_set_slot_flags(race->vm, KVM_MEM_LOG_DIRTY_PAGES) ||
	    vm_set_slot_flags(race->vm, 0))
		return reply_errno("KVM_SET_USER_MEMORY_REGION");
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
		if (bind_to_cpu(vm->vcpus[i].thread, race->cpu[i % race->cpus]))
			return reply_errno("pthread_setaffinity_np");
		memset(vm->vcpus[i].records, 0, vm->pages * sizeof(struct record));
		vm->vcpus[i].mailbox->dropped = 0;
		memset(&vm->vcpus[i].mailbox->reads, 0, sizeof(struct accesses));
		memset(&vm->vcpus[i].mailbox->writes, 0, sizeof(struct accesses));
		memset(&vm->vcpus[i].read, 0, sizeof(struct row));
		memset(&vm->vcpus[i].written, 0, sizeof(struct row));
		vm->vcpus[i].emulated = 0;
	}
	/* Starts from pages that hold nothing. */
	memset(race->drops, 0, vm->pages * sizeof(*race->drops));
	memset(vm->expected, 0, vm->pages * sizeof(*vm->expected));
	if (madvise(vm->slot, (size_t)vm->pages << GUEST_PAGE_SHIFT, MADV_DONTNEED))
		return reply_errno("madvise");
	return 0;
}

static int race_all(struct race *race, enum ager_kind kind, uint32_t rounds, uint32_t agers)
{
	int priority = race->opponent->waits ? 0 : AGER_PRIORITY;
	cpu_set_t anywhere;
	int failed;

	race->agers.nice = race->opponent->shares ? 0 : AGER_NICE;
	if (agers_start(&race->agers, race->vm, kind, agers, race->cpu, race->cpus, priority))
		return -1;
	race->vm->unruly = race->opponent->unruly;
	race_resume(race);
	/* This thread leads: it must be there when the agers have done their part. */
	errno = pthread_getaffinity_np(pthread_self(), sizeof(anywhere), &anywhere);
	if (errno || bind_to_cpu(pthread_self(), race->cpu[0]) ||
	    set_priority(pthread_self(), LEADER_PRIORITY))
		die_errno("the thread that leads a race");
	failed = run_rounds(race, rounds);
	if (set_priority(pthread_self(), 0))
		die_errno("pthread_setschedparam");
	errno = pthread_setaffinity_np(pthread_self(), sizeof(anywhere), &anywhere);
	if (errno)
		die_errno("pthread_setaffinity_np");
	race->passes = agers_stop(&race->agers);
	stop_vcpus(race);
	failed = end_vcpus(race, failed);
	race->vm->unruly = false;
	return failed;
}

static void reply_race(const struct race *race, uint32_t rounds, uint64_t touches, uint64_t least)
{
	const struct race_counts *counts = &race->counts;
	uint64_t found = 0, emulated = 0;

	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		found += race->vm->vcpus[i].mailbox->dropped;
		emulated += vcpu_emulated(&race->vm->vcpus[i]);
	}
	reply_ok(" rounds=%u cpus=%u touches=%" PRIu64 " least=%" PRIu64, rounds, race->cpus,
		 touches, least);
	fprintf(reply, " found=%" PRIu64 " passes=%" PRIu64, found, race->passes);
	fprintf(reply, " acts=%" PRIu64 " acts_us=%.0f slowest_us=%.0f", counts->acts,
		counts->seconds * 1e6, counts->slowest * 1e6);
	fprintf(reply, " dropped=%" PRIu64 " paged_out=%" PRIu64, counts->dropped,
		counts->paged_out);
	fprintf(reply, " logged=%" PRIu64 " emulated=%" PRIu64, counts->logged, emulated);
	fprintf(reply, " vms=%" PRIu64 " split=%" PRIu64, counts->vms, counts->split);
	fprintf(reply, " collapsed=%" PRIu64, counts->collapsed);
}

static int run(struct race *race, enum ager_kind kind, uint32_t rounds, uint32_t agers)
{
	uint64_t touches = 0, least = UINT64_MAX;

	if (reset(race) || race_all(race, kind, rounds, agers))
		return -1;
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		uint64_t made = race->before[i] + vcpu_touches(&race->vm->vcpus[i]);

		touches += made;
		least = made < least ? made : least;
	}
	if (check_at_end(race))
		return -1;
	reply_race(race, rounds, touches, least);
	return 0;
}

static unsigned int most_cpus(const struct vm *vm)
{
	unsigned int fewer = vm->vcpu_count - 1;

	if (fewer < FEWEST_RACE_CPUS)
		return FEWEST_RACE_CPUS;
	return fewer < MOST_RACE_CPUS ? fewer : MOST_RACE_CPUS;
}

int command_race(struct vm *vm, char **words)
{
	struct race race = {
		.vm = vm,
		.drops = (void *)(vm->payload + vm_drops_offset(vm)),
		.until = now() + vm->timeout * RACE_TIME,
		.patience = vm->timeout * PATIENCE,
		.opponent = opponent_find(words[4]),
	};
	uint32_t seed, rounds, agers;
	enum ager_kind kind;
	int result;

	if (parse_number(words[0], UINT32_MAX, "SEED", &seed) ||
	    parse_number(words[1], MAX_ROUNDS, "ROUNDS", &rounds) ||
	    parse_number(words[2], MAX_AGERS + 1, "AGERS", &agers))
		return -1;
	if (!ager_parse(words[3], &kind))
		return reply_error("usage", "AGER must be page-idle, walk or eviction");
	if (!race.opponent)
		return reply_error("usage", "unknown OPPONENT");
	if (vm->readonly || vm->dirty_log || vm->manual_log || vm->ring ||
	    vm->second || (vm->skew && !race.opponent->skews))
		return reply_error("usage", "a race needs one slot that is writable, not logged and not skewed");
	if (vm->backing != race.opponent->backing)
		return reply_error("usage", "a race against %s needs memory that is %s",
				   race.opponent->name, backing_name(race.opponent->backing));
	race.cpus = cpus_usable(race.cpu, most_cpus(vm));
	if (!race.cpus)
		return reply_errno("sched_setaffinity");
	race.random = (uint64_t)seed << 1 | 1;
	if (race.opponent->copies)
		race.copy = calloc(vm->pages, GUEST_PAGE_SIZE);
	if (race.opponent->copies && !race.copy)
		die("out of memory");
	race.marker = open(MARKER, O_WRONLY | O_CLOEXEC);
	result = run(&race, kind, rounds, agers);
	if (race.marker >= 0)
		close(race.marker);
	free(race.copy);
	return result;
}
