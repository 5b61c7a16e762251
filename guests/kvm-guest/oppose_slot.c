// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tested slot goes away, or lets nobody write, and comes back. What a vCPU
 * does with it meanwhile must end KVM_RUN, each time, and is then done for it; and
 * no longer once it is back. In half of the cases the memory gets other pages
 * before it comes back, so that who still reaches the old ones reads what is stale.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include "race.h"
#include "reply.h"
#include "threads.h"

/* Touches that each vCPU makes while the slot is not there. */
#define AWAY_TOUCHES 8
/* So often the slot comes, and goes, in a row while its pages are dropped. */
#define CHANGES 2
/* Touches that each vCPU makes before that. */
#define THERE_TOUCHES 16
/* Microseconds between two looks at what the other thread does. */
#define PAUSE_POLL 20
/* Microseconds from when a drop begins to when the slot changes, at most. */
#define MAX_PAUSE 2000
/* Of the thread that drops, before the vCPU and the ager that have its CPU as well. */
#define DROPPER_PRIORITY 1

/* How many accesses a vCPU had begun when the slot was surely gone. */
struct tally {
	uint64_t reads;
	uint64_t writes;
};

static uint64_t load_number(const uint64_t *number)
{
	return __atomic_load_n(number, __ATOMIC_ACQUIRE);
}

static void tally_all(const struct race *race, struct tally *tallies)
{
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		const struct mailbox *mailbox = race->vm->vcpus[i].mailbox;

		tallies[i].reads = load_number(&mailbox->reads.begun);
		tallies[i].writes = load_number(&mailbox->writes.begun);
	}
}

/*
 * Each access that was begun later and has ended must have been made for the vCPU.
 * What they were is read after it: that can only count in the kernel's favour.
 */
static int check_row(const struct vcpu *vcpu, const char *name, uint64_t before,
		     const struct accesses *accesses, const struct row *row)
{
	uint64_t ended = load_number(&accesses->ended);
	struct row made = row_read(row);

	if (!row_covers(made, before, ended))
		return reply_error("data", "reached vcpu=%u page=%lu %s=%lu-%lu exits=%lu-%lu",
				   vcpu->id, vcpu->mailbox->page, name, before + 1, ended,
				   made.first, made.last);
	return 0;
}

static int check_one(const struct vcpu *vcpu, const struct tally *before, bool readable)
{
	const struct mailbox *mailbox = vcpu->mailbox;

	if (!readable && check_row(vcpu, "reads", before->reads, &mailbox->reads, &vcpu->read))
		return -1;
	return check_row(vcpu, "writes", before->writes, &mailbox->writes, &vcpu->written);
}

/* Lets the vCPUs touch pages that KVM must not let them touch, or not write to. */
static int check_away(struct race *race, bool readable)
{
	struct tally before[MAX_VCPUS];

	tally_all(race, before);
	if (race_wait_touches(race, AWAY_TOUCHES))
		return -1;
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++) {
		if (check_one(&race->vm->vcpus[i], &before[i], readable))
			return -1;
	}
	return 0;
}

/* Since the slot was back, nothing can have been emulated. */
static int check_there(struct race *race)
{
	for (unsigned int i = 0; race->settled && i < race->vm->vcpu_count; i++) {
		uint64_t since = vcpu_emulated(&race->vm->vcpus[i]) - race->emulated[i];

		if (since)
			return reply_error("data", "barred vcpu=%u exits=%lu", i, since);
	}
	race->settled = false;
	return 0;
}

int oppose_by_slot_end(struct race *race)
{
	return check_there(race);
}

/* After one touch, none is under way that began before the slot came back. */
static int settle(struct race *race)
{
	if (race_wait_touches(race, 1))
		return -1;
	for (unsigned int i = 0; i < race->vm->vcpu_count; i++)
		race->emulated[i] = vcpu_emulated(&race->vm->vcpus[i]);
	race->settled = true;
	return 0;
}

static int take_away(struct race *race, bool by_move)
{
	int result;

	race_begin(race, RACE_ACT, 0, race->vm->pages);
	result = by_move ? vm_move_slot(race->vm, OTHER_SLOT_IPA) : vm_delete_slot(race->vm);
	race_end(race, 0, race->vm->pages);
	return result ? reply_errno("KVM_SET_USER_MEMORY_REGION") : 0;
}

static int bring_back(const struct race *race, uint32_t flags)
{
	return vm_set_slot_flags(race->vm, flags) ? reply_errno("KVM_SET_USER_MEMORY_REGION") : 0;
}

static int bring_back_in_act(struct race *race)
{
	int result;

	race_begin(race, RACE_ACT, 0, race->vm->pages);
	result = bring_back(race, 0);
	race_end(race, 0, race->vm->pages);
	return result;
}

static int away_and_back(struct race *race, bool by_move)
{
	if (check_there(race) || take_away(race, by_move))
		return -1;
	agers_rest(&race->agers);
	if (check_away(race, false))
		return -1;
	if (race_random(race, 2))
		race_drop(race, 0, race->vm->pages, false);
	return bring_back(race, 0) || settle(race) ? -1 : 0;
}

int oppose_by_delete(struct race *race, uint32_t first, uint32_t count)
{
	(void)first;
	(void)count;
	return away_and_back(race, false);
}

int oppose_by_move(struct race *race, uint32_t first, uint32_t count)
{
	(void)first;
	(void)count;
	return away_and_back(race, true);
}

static int set_flags(struct race *race, uint32_t flags)
{
	int result;

	race_begin(race, RACE_ACT, 0, race->vm->pages);
	result = vm_set_slot_flags(race->vm, flags);
	race_end(race, 0, race->vm->pages);
	return result ? reply_errno("KVM_SET_USER_MEMORY_REGION") : 0;
}

/* A slot can get and lose the dirty log while it is there; to be read-only it must be made anew. */
int oppose_by_flags(struct race *race, uint32_t first, uint32_t count)
{
	(void)first;
	(void)count;
	if (race_random(race, 2))
		return set_flags(race, KVM_MEM_LOG_DIRTY_PAGES) || set_flags(race, 0) ? -1 : 0;
	if (check_there(race) || take_away(race, false) || bring_back(race, KVM_MEM_READONLY))
		return -1;
	agers_rest(&race->agers);
	if (check_away(race, true) || take_away(race, false) || bring_back(race, 0))
		return -1;
	return settle(race);
}

/* Drops the content of all pages once, each time that it is told to. */
struct dropper {
	struct race *race;
	sem_t go;
	sem_t done;
	bool begun;
	bool stop;
};

static void *drop_each_time(void *argument)
{
	struct dropper *dropper = argument;

	for (;;) {
		sem_wait(&dropper->go);
		if (dropper->stop)
			return NULL;
		__atomic_store_n(&dropper->begun, true, __ATOMIC_RELEASE);
		race_drop(dropper->race, 0, dropper->race->vm->pages, false);
		sem_post(&dropper->done);
	}
}

/*
 * One drop, and one change of the slot within it: a drop that begins with the slot and
 * ends without it is not to be set off by one the other way.
 */
static int change_beside_drop(struct dropper *dropper, bool comes)
{
	struct race *race = dropper->race;
	int result;

	__atomic_store_n(&dropper->begun, false, __ATOMIC_RELEASE);
	sem_post(&dropper->go);
	while (!__atomic_load_n(&dropper->begun, __ATOMIC_ACQUIRE))
		usleep(PAUSE_POLL);
	usleep(race_random(race, MAX_PAUSE));
	result = comes ? bring_back_in_act(race) : take_away(race, false);
	sem_wait(&dropper->done);
	return result;
}

/* Before each drop there are pages to drop: vCPUs have touched them. */
static int change_slot(struct dropper *dropper)
{
	struct race *race = dropper->race;

	for (unsigned int i = 0; i < CHANGES; i++) {
		if (race_wait_touches(race, THERE_TOUCHES) || take_away(race, false) ||
		    change_beside_drop(dropper, true) ||
		    race_wait_touches(race, THERE_TOUCHES) ||
		    change_beside_drop(dropper, false) || bring_back(race, 0))
			return -1;
	}
	return 0;
}

/*
 * KVM hears where an unmap begins and where it ends, and lets no fault map a page in
 * between. If the slot is another by the end, it must not wait for that for ever.
 */
int oppose_by_unmapped_slot(struct race *race, uint32_t first, uint32_t count)
{
	struct dropper dropper = { .race = race };
	pthread_t other;
	int result;

	(void)first;
	(void)count;
	if (check_there(race))
		return -1;
	sem_init(&dropper.go, 0, 0);
	sem_init(&dropper.done, 0, 0);
	/* This thread has the first CPU, and does not wait until the other gets its turn. */
	other = start_on_cpu(drop_each_time, &dropper, race->cpu[race->cpus - 1],
			     DROPPER_PRIORITY, "the thread that drops pages");
	result = change_slot(&dropper);
	dropper.stop = true;
	sem_post(&dropper.go);
	join(other);
	agers_rest(&race->agers);
	return result ? -1 : settle(race);
}
