// SPDX-License-Identifier: GPL-2.0-only
/*
 * The dirty log against aging, used as a migration uses it: all pages are copied
 * once the log is on, then those that it names, again and again; and when the
 * vCPUs rest and it was read once more, the copy must be what memory holds. A
 * write that the log missed is a page whose copy is old.
 */
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "race.h"
#include "reply.h"

#define WORD_BITS 64
/* Of so many acts one ends the migration, on average. */
#define ACTS 6
/* How often the log is read in each of the others, while the agers go on. */
#define READS 4
/* At most so long the vCPUs write and the agers age between two reads, in microseconds. */
#define MOMENT 2000

static void copy_page(const struct race *race, uint32_t page)
{
	size_t at = (size_t)page << GUEST_PAGE_SHIFT;

	memcpy(race->copy + at, race->vm->slot + at, GUEST_PAGE_SIZE);
}

static int switch_log(struct race *race, bool on)
{
	int result;

	race_begin(race, RACE_ACT, 0, race->vm->pages);
	result = vm_set_slot_flags(race->vm, on ? KVM_MEM_LOG_DIRTY_PAGES : 0);
	race_end(race, 0, race->vm->pages);
	race->logging = on;
	return result ? reply_errno("KVM_SET_USER_MEMORY_REGION") : 0;
}

static int begin(struct race *race)
{
	if (switch_log(race, true))
		return -1;
	for (uint32_t page = 0; page < race->vm->pages; page++)
		copy_page(race, page);
	return 0;
}

static int copy_logged(struct race *race)
{
	uint32_t pages = race->vm->pages;
	uint64_t *bitmap = calloc((pages + WORD_BITS - 1) / WORD_BITS, sizeof(*bitmap));
	int result;

	if (!bitmap)
		die("out of memory");
	race_begin(race, RACE_READ_LOG, 0, pages);
	result = vm_get_dirty_log(race->vm, bitmap);
	race_end(race, 0, pages);
	for (uint32_t page = 0; !result && page < pages; page++) {
		if (bitmap[page / WORD_BITS] >> page % WORD_BITS & 1) {
			copy_page(race, page);
			race->counts.logged++;
		}
	}
	free(bitmap);
	return result ? reply_errno("KVM_GET_DIRTY_LOG") : 0;
}

static int compare(const struct race *race)
{
	for (uint32_t page = 0; page < race->vm->pages; page++) {
		size_t at = (size_t)page << GUEST_PAGE_SHIFT;

		if (memcmp(race->copy + at, race->vm->slot + at, GUEST_PAGE_SIZE))
			return reply_error("data", "unlogged page=%u", page);
	}
	return 0;
}

int oppose_by_log_end(struct race *race)
{
	if (!race->logging)
		return 0;
	/* A vCPU that shares its CPU with an ager would be long in parking. */
	agers_rest(&race->agers);
	if (race_pause(race) || copy_logged(race) || compare(race))
		return -1;
	race_resume(race);
	if (agers_send(&race->agers, 0, race->vm->pages, race->agers.lasting))
		return -1;
	return switch_log(race, false);
}

int oppose_by_log(struct race *race, uint32_t first, uint32_t count)
{
	(void)first;
	(void)count;
	if (!race->logging)
		return begin(race);
	if (!race_random(race, ACTS))
		return oppose_by_log_end(race);
	for (int i = 0; i < READS; i++) {
		if (copy_logged(race))
			return -1;
		usleep(race_random(race, MOMENT));
	}
	return 0;
}
