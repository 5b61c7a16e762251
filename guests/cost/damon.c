// SPDX-License-Identifier: GPL-2.0-only
#include "damon.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "files.h"
#include "vm.h"
#include "wait.h"

#define KDAMONDS "/sys/kernel/mm/damon/admin/kdamonds/"
#define CONTEXT KDAMONDS "0/contexts/0/"
#define ATTRIBUTES CONTEXT "monitoring_attrs/"
#define TARGET CONTEXT "targets/0/"
/* Longer than any boot, in microseconds; and so many of these before it looks at the results. */
#define INTERVAL 4000000000
#define INTERVALS 1000

static void write_number(const char *path, uint64_t number)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, number);
	file_write(path, text);
}

static void write_bound(uint32_t region, const char *which, uint64_t address)
{
	char path[128];

	snprintf(path, sizeof(path), TARGET "regions/%" PRIu32 "/%s", region, which);
	write_number(path, address);
}

bool damon_exists(void)
{
	return !access(KDAMONDS "nr_kdamonds", W_OK);
}

void damon_prepare(const void *first, uint32_t pages)
{
	uint64_t address = (uintptr_t)first;

	write_number(KDAMONDS "nr_kdamonds", 1);
	write_number(KDAMONDS "0/contexts/nr_contexts", 1);
	file_write(CONTEXT "operations", "vaddr");
	write_number(ATTRIBUTES "intervals/sample_us", INTERVAL);
	write_number(ATTRIBUTES "intervals/aggr_us", INTERVAL * INTERVALS);
	write_number(ATTRIBUTES "intervals/update_us", INTERVAL * INTERVALS);
	/* The most first: it may not be less than the least. */
	write_number(ATTRIBUTES "nr_regions/max", pages);
	write_number(ATTRIBUTES "nr_regions/min", pages);
	write_number(CONTEXT "targets/nr_targets", 1);
	write_number(TARGET "pid_target", getpid());
	write_number(TARGET "regions/nr_regions", pages);
	for (uint32_t page = 0; page < pages; page++) {
		write_bound(page, "start", address + ((uint64_t)page << GUEST_PAGE_SHIFT));
		write_bound(page, "end", address + ((uint64_t)(page + 1) << GUEST_PAGE_SHIFT));
	}
}

/* State I is that of the sampling interval: what it waits for before that has others. */
static bool in_interval(const char *thread)
{
	char path[64], stat[512], *state;

	snprintf(path, sizeof(path), "/proc/%.16s/stat", thread);
	file_read(path, stat, sizeof(stat));
	state = strrchr(stat, ')');
	return state && !strncmp(state, ") I", 3);
}

void damon_on(void)
{
	char thread[32];
	int waited = 0;

	file_write(KDAMONDS "0/state", "on");
	file_read(KDAMONDS "0/pid", thread, sizeof(thread));
	thread[strcspn(thread, "\n")] = '\0';
	while (!in_interval(thread))
		wait_a_ms(&waited, "DAMON");
}

void damon_off(void)
{
	file_write(KDAMONDS "0/state", "off");
}

void damon_remove(void)
{
	write_number(KDAMONDS "nr_kdamonds", 0);
}
