// SPDX-License-Identifier: GPL-2.0-only
#include "measure.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "calls.h"
#include "counter.h"
#include "files.h"
#include "lru_gen.h"
#include "marks.h"
#include "reply.h"
#include "say.h"
#include "subject.h"
#include "vm.h"

/* Generations that lie between a page and the youngest when it is evicted. */
#define GENERATIONS 3
#define MAX_STAT (1 << 14)

/* Whether MGLRU walks page tables here: bit 0x2 of lru_gen/enabled, as on CPUs that set AF. */
static bool walks_page_tables(void)
{
	char text[32];

	file_read("/sys/kernel/mm/lru_gen/enabled", text, sizeof(text));
	return strtoul(text, NULL, 16) & 2;
}

static uint64_t exits_of(const struct vm *vm)
{
	return vcpu_stats_read(&vm->vcpus[0].stats).values[0];
}

/*
 * The bitmap has a bit for each page between the tested ones as well, and how many these are is a
 * matter of chance: what it takes to look at all of the bits is taken off.
 */
static uint64_t measure_marks(int counter, const struct vm *vm)
{
	struct marks marks;
	uint64_t start, middle, end;

	marks_find(&marks, vm);
	subject_await_tick();
	start = counter_read(counter);
	marks_set_none(&marks);
	middle = counter_read(counter);
	marks_set(&marks);
	end = counter_read(counter);
	marks_free(&marks);
	return (end - middle) - (middle - start);
}

void measure_bare(uint32_t pages)
{
	int counter = counter_open();
	struct vm vm;

	subject_bare(&vm, pages);
	for (int pass = 0; pass < PASSES; pass++)
		subject_tell("idle-bare", pages, pass, pages, measure_marks(counter, &vm));
}

static void open_lru_gen(struct lru_gen *lru_gen)
{
	if (lru_gen_open(lru_gen))
		die_errno("lru_gen of this process's memcg");
}

static void make_generation(const struct lru_gen *lru_gen)
{
	if (lru_gen_age(lru_gen, 0))
		die_errno("one more generation by lru_gen");
}

static void measure_access(int counter, struct vm *vm, int pass)
{
	uint64_t exits = exits_of(vm), before, count;

	vcpu_tell(&vm->vcpus[0], MAILBOX_READ, vm->pages, 0);
	subject_await_tick();
	before = counter_read(counter);
	vcpu_run_here(&vm->vcpus[0]);
	count = counter_read(counter) - before;
	/* The last exit is the one by which it parks. */
	say("faults access pages=%" PRIu32 " pass=%d exits=%" PRIu64, vm->pages, pass,
	    exits_of(vm) - exits);
	subject_tell("access", vm->pages, pass, vm->pages, count);
}

void measure_idle(uint32_t pages)
{
	int counter = counter_open();
	static struct vm vm;

	subject_guest(&vm, pages, pages);
	for (int pass = 0; pass < PASSES; pass++) {
		subject_tell("idle", pages, pass, pages, measure_marks(counter, &vm));
		measure_access(counter, &vm, pass);
	}
}

void measure_walk(uint32_t pages)
{
	int counter = counter_open();
	struct lru_gen lru_gen;
	static struct vm vm;

	if (!walks_page_tables())
		return;
	subject_guest(&vm, pages, pages);
	open_lru_gen(&lru_gen);
	for (int pass = 0; pass < PASSES; pass++) {
		uint64_t before, count;

		subject_await_tick();
		before = counter_read(counter);
		make_generation(&lru_gen);
		count = counter_read(counter) - before;
		subject_tell("walk", pages, pass, pages, count);
		subject_run(&vm, MAILBOX_READ, pages);
	}
}

/* A number of memory.stat of this process's memcg. */
static uint64_t stat_of(const char *cgroup, const char *name)
{
	char text[MAX_STAT], path[192], *at;

	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.stat", cgroup);
	text[0] = '\n';
	file_read(path, text + 1, sizeof(text) - 1);
	at = strstr(text, name);
	if (!at)
		die("no %s in %s", name, path);
	return strtoull(at + strlen(name), NULL, 10);
}

/*
 * Makes the pages old, for the host and for the guest. page_idle leaves a mark on those that it
 * found young, which reclaim takes for an access: MADV_COLD takes it away.
 */
static void make_old(const struct lru_gen *lru_gen, const struct vm *vm)
{
	struct marks marks;

	marks_find(&marks, vm);
	marks_set(&marks);
	marks_free(&marks);
	if (madvise(vm->slot, (size_t)vm->pages << GUEST_PAGE_SHIFT, MADV_COLD))
		die_errno("madvise(MADV_COLD)");
	subject_drain();
	for (int i = 0; i < GENERATIONS; i++)
		make_generation(lru_gen);
}

static void ask_for_memory(const struct lru_gen *lru_gen, uint32_t pages)
{
	char text[32], path[192];

	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.reclaim", lru_gen->memcg);
	snprintf(text, sizeof(text), "%zu", (size_t)pages << GUEST_PAGE_SHIFT);
	/* What it could not reclaim shows in the count. */
	file_offer(path, text);
}

void measure_reclaim(uint32_t pages)
{
	int counter = counter_open();
	struct lru_gen lru_gen;
	static struct vm vm;

	subject_guest(&vm, pages, pages);
	open_lru_gen(&lru_gen);
	for (int pass = 0; pass < PASSES; pass++) {
		uint64_t before, count, stolen;

		make_old(&lru_gen, &vm);
		stolen = stat_of(lru_gen.memcg, "\npgsteal ");
		before = counter_read(counter);
		ask_for_memory(&lru_gen, pages);
		count = counter_read(counter) - before;
		stolen = stat_of(lru_gen.memcg, "\npgsteal ") - stolen;
		subject_tell("reclaim", pages, pass, stolen, count);
		subject_run(&vm, MAILBOX_WRITE, pages);
		subject_drain();
	}
}

void count_calls(uint32_t pages)
{
	bool walks = walks_page_tables();
	struct lru_gen lru_gen;
	struct marks marks;
	static struct vm vm;

	subject_guest(&vm, pages, pages);
	open_lru_gen(&lru_gen);
	subject_run(&vm, MAILBOX_READ, pages);
	marks_find(&marks, &vm);
	calls_count();
	marks_set(&marks);
	calls_tell("idle", pages);
	marks_free(&marks);
	if (walks) {
		subject_run(&vm, MAILBOX_READ, pages);
		calls_count();
		make_generation(&lru_gen);
		calls_tell("walk", pages);
	}
	make_old(&lru_gen, &vm);
	calls_count();
	ask_for_memory(&lru_gen, pages);
	calls_tell("reclaim", pages);
}
