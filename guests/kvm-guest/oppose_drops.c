// SPDX-License-Identifier: GPL-2.0-only
/*
 * Drops at the same time: this thread drops many pages that lie side by side, while
 * another drops single ones of the others, one after the other. KVM is told where
 * each drop begins and ends; whichever ends first, no fault may map a page that the
 * other is about to take away.
 */
#include <semaphore.h>
#include <unistd.h>

#include "race.h"
#include "threads.h"

/* Long drops in an act, and the touches that each vCPU makes before each. */
#define LONG_DROPS 4
#define TOUCHES 16
/* Microseconds from one short drop to the next, at most: then a vCPU has that CPU. */
#define PAUSE 500
/* A vCPU on its CPU must not keep it waiting. */
#define PRIORITY 1

/* Drops single pages from @first on, while the drops of those before it are long. */
struct dropper {
	struct race *race;
	uint32_t first;
	uint64_t random;
	sem_t go;
	sem_t rests;
	bool rest;
	bool stop;
};

static void drop_one(struct dropper *dropper)
{
	uint32_t others = dropper->race->vm->pages - dropper->first;

	race_drop(dropper->race, dropper->first + random_below(&dropper->random, others), 1,
		  false);
}

static void *drop_others(void *argument)
{
	struct dropper *dropper = argument;

	for (;;) {
		sem_wait(&dropper->go);
		if (dropper->stop)
			return NULL;
		while (!__atomic_load_n(&dropper->rest, __ATOMIC_ACQUIRE)) {
			drop_one(dropper);
			usleep(random_below(&dropper->random, PAUSE));
		}
		sem_post(&dropper->rests);
	}
}

/* The host takes the pages in order: those before the slot give it something to do first. */
static void fill_before(const struct vm *vm)
{
	for (uint32_t page = 1; page <= vm->skew; page++)
		__atomic_store_n(vm->slot - ((size_t)page << GUEST_PAGE_SHIFT), 1,
				 __ATOMIC_RELAXED);
}

static int drop_many(struct race *race, struct dropper *dropper)
{
	/* Before anything is allocated: who has a page still that is gone finds what it held. */
	if (race_wait_touches(race, TOUCHES))
		return -1;
	fill_before(race->vm);
	dropper->rest = false;
	sem_post(&dropper->go);
	usleep(race_random(race, PAUSE));
	race_drop_with_skew(race, dropper->first);
	__atomic_store_n(&dropper->rest, true, __ATOMIC_RELEASE);
	sem_wait(&dropper->rests);
	return 0;
}

/* The pages that are dropped at once are half to three quarters of all. */
int oppose_by_two_drops(struct race *race, uint32_t first, uint32_t count)
{
	struct dropper dropper = {
		.race = race,
		.first = count / 2 + race_random(race, count / 4 + 1),
	};
	pthread_t other;
	int result = 0;

	(void)first;
	dropper.random = (uint64_t)race_random(race, UINT32_MAX) << 1 | 1;
	sem_init(&dropper.go, 0, 0);
	sem_init(&dropper.rests, 0, 0);
	/* This thread has the first CPU. */
	other = start_on_cpu(drop_others, &dropper, race->cpu[race->cpus - 1], PRIORITY,
			     "the thread that drops single pages");
	for (unsigned int i = 0; i < LONG_DROPS && !result; i++)
		result = drop_many(race, &dropper);
	dropper.stop = true;
	sem_post(&dropper.go);
	join(other);
	return result;
}
