// SPDX-License-Identifier: GPL-2.0-only
/*
 * The pages come and go meanwhile, so each pass looks up the PFNs anew. One that
 * has gone to somebody else by then is aged for them, which harms nobody.
 */
#include "ager.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "array_size.h"
#include "page_idle.h"
#include "reply.h"
#include "threads.h"

#define PM_PRESENT	(1ULL << 63)
#define PM_PFN		((1ULL << 55) - 1)

struct files {
	int pagemap;
	int bitmap;
	void *unused;		/* a page of memory that nobody touches */
};

struct range {
	uint32_t first;
	uint32_t count;
	uint64_t sent;
	uint64_t *pfns;		/* room for all pages of the slot */
};

static int fail(struct ager *ager, const char *what)
{
	int error = errno ? errno : EIO;

	pthread_mutex_lock(&ager->all->lock);
	ager->error = error;
	ager->what = what;
	pthread_mutex_unlock(&ager->all->lock);
	return -1;
}

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

/* Finds the PFNs of those pages that are present, rising; returns their number, -1 on failure. */
static ssize_t present_pfns(struct ager *ager, int pagemap, const struct range *range)
{
	uint64_t first = ((uintptr_t)ager->all->vm->slot >> GUEST_PAGE_SHIFT) + range->first;
	uint64_t *pfns = range->pfns;
	size_t size = range->count * sizeof(*pfns), count = 0;
	off_t offset = first * sizeof(*pfns);

	if (pread(pagemap, pfns, size, offset) != (ssize_t)size)
		return fail(ager, "pread of /proc/self/pagemap");
	for (uint32_t page = 0; page < range->count; page++) {
		if (pfns[page] & PM_PRESENT)
			pfns[count++] = pfns[page] & PM_PFN;
	}
	qsort(pfns, count, sizeof(*pfns), compare);
	return count;
}

/* Marks the pages of one word of the bitmap idle, which makes each of them old. */
static int age_word(struct ager *ager, int bitmap, uint64_t word, uint64_t bits)
{
	if (pwrite(bitmap, &bits, sizeof(bits), word * sizeof(bits)) != sizeof(bits))
		return fail(ager, "pwrite of " PAGE_IDLE_BITMAP);
	return 0;
}

/* Whether the range that it was sent to is still the one to age. */
static bool is_wanted(struct ager *ager, uint64_t sent)
{
	const struct agers *all = ager->all;

	return __atomic_load_n(&all->sent, __ATOMIC_ACQUIRE) == sent &&
	       __atomic_load_n(&all->count, __ATOMIC_ACQUIRE);
}

/* Says that it is about to age the range. */
static void report_begun(struct ager *ager, uint64_t sent)
{
	pthread_mutex_lock(&ager->all->lock);
	if (ager->begun != sent) {
		ager->begun = sent;
		pthread_cond_broadcast(&ager->all->changed);
	}
	pthread_mutex_unlock(&ager->all->lock);
}

/*
 * Brings new pages to the LRU, as page_idle and eviction pass over all others: each
 * CPU keeps some back. To declare memory cold empties what this CPU has, and no other
 * way is as cheap: mm/madvise.c, madvise_cold().
 */
static int drain(struct ager *ager, const struct files *files)
{
	if (madvise(files->unused, GUEST_PAGE_SIZE, MADV_COLD))
		return fail(ager, "madvise(MADV_COLD)");
	return 0;
}

static int pass_by_idle(struct ager *ager, const struct files *files, const struct range *range)
{
	ssize_t count = present_pfns(ager, files->pagemap, range);
	ssize_t next;

	if (count < 0 || drain(ager, files))
		return -1;
	report_begun(ager, range->sent);
	for (ssize_t i = 0; i < count && is_wanted(ager, range->sent); i = next) {
		uint64_t word = range->pfns[i] / WORD_BITS, bits = 0;

		for (next = i; next < count && range->pfns[next] / WORD_BITS == word; next++)
			bits |= 1ULL << range->pfns[next] % WORD_BITS;
		if (age_word(ager, files->bitmap, word, bits))
			return -1;
	}
	return 0;
}

/* As many pages are evicted as the range has. */
static int pass_by_lru(struct ager *ager, const struct files *files, const struct range *range)
{
	bool evict = ager->all->kind == AGER_EVICTION;

	if (evict && drain(ager, files))
		return -1;
	report_begun(ager, range->sent);
	if (lru_gen_age(&ager->lru_gen, evict ? range->count : 0))
		return fail(ager, "aging by lru_gen");
	return 0;
}

static int pass(struct ager *ager, const struct files *files, const struct range *range)
{
	if (ager->all->kind == AGER_PAGE_IDLE)
		return pass_by_idle(ager, files, range);
	return pass_by_lru(ager, files, range);
}

bool ager_parse(const char *name, enum ager_kind *kind)
{
	static const char * const names[] = {
		[AGER_PAGE_IDLE] = "page-idle",
		[AGER_WALK] = "walk",
		[AGER_EVICTION] = "eviction",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(name, names[i])) {
			*kind = i;
			return true;
		}
	}
	return false;
}

/* Whether it goes over the same range again and again. */
static bool goes_on(const struct agers *all, const struct ager *ager)
{
	return ager - all->each < all->again;
}

/* Waits for a range to age; false when there will be none. */
static bool next_range(struct agers *all, const struct ager *ager, struct range *range)
{
	bool more;

	pthread_mutex_lock(&all->lock);
	while (!all->stop &&
	       (!all->count || (ager->sent == all->sent && !goes_on(all, ager))))
		pthread_cond_wait(&all->changed, &all->lock);
	more = !all->stop;
	range->first = all->first;
	range->count = all->count;
	range->sent = all->sent;
	pthread_mutex_unlock(&all->lock);
	return more;
}

/* Says that it has passed over the range, or that it failed. */
static void report(struct ager *ager, uint64_t sent)
{
	pthread_mutex_lock(&ager->all->lock);
	ager->sent = sent;
	ager->passes++;
	pthread_cond_broadcast(&ager->all->changed);
	pthread_mutex_unlock(&ager->all->lock);
}

/* A thread without a real-time priority gets more of its CPU than the vCPUs that have it too. */
static void be_first(struct ager *ager)
{
	if (setpriority(PRIO_PROCESS, gettid(), ager->all->nice))
		fail(ager, "setpriority");
}

/* The other kinds age all of the memcg, also on a kernel that has no page_idle. */
static int open_bitmap(struct ager *ager, struct files *files)
{
	if (ager->all->kind != AGER_PAGE_IDLE)
		return 0;
	files->bitmap = open(PAGE_IDLE_BITMAP, O_WRONLY | O_CLOEXEC);
	return files->bitmap < 0 ? fail(ager, PAGE_IDLE_BITMAP) : 0;
}

static void *run(void *argument)
{
	struct ager *ager = argument;
	struct range range = { .pfns = malloc(ager->all->vm->pages * sizeof(*range.pfns)) };
	struct files files = {
		.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC),
		.bitmap = -1,
		.unused = mmap(NULL, GUEST_PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			       0),
	};

	if (!range.pfns || files.pagemap < 0 || files.unused == MAP_FAILED)
		fail(ager, "set-up of an ager");
	else
		open_bitmap(ager, &files);
	be_first(ager);
	while (next_range(ager->all, ager, &range)) {
		if (!ager->error)
			pass(ager, &files, &range);
		report(ager, range.sent);
		if (ager->error)
			break;
	}
	if (files.pagemap >= 0)
		close(files.pagemap);
	if (files.bitmap >= 0)
		close(files.bitmap);
	if (files.unused != MAP_FAILED)
		munmap(files.unused, GUEST_PAGE_SIZE);
	free(range.pfns);
	return NULL;
}

/*
 * One that shares its CPU with the thread that waits for it, or with another that goes
 * on, would not get there. On a single CPU there is but the one to go on.
 */
static uint32_t most_lasting(uint32_t number, unsigned int cpus)
{
	uint32_t others = cpus > 1 ? cpus - 1 : 1;

	return number < others ? number : others;
}

int agers_start(struct agers *agers, const struct vm *vm, enum ager_kind kind, uint32_t number,
		const unsigned int *cpus, unsigned int count, int priority)
{
	agers->vm = vm;
	agers->kind = kind;
	agers->number = number;
	agers->lasting = most_lasting(number, count);
	for (uint32_t i = 0; kind != AGER_PAGE_IDLE && i < number; i++) {
		if (lru_gen_open(&agers->each[i].lru_gen))
			return reply_errno("lru_gen of the memcg that kvm-guest is in");
	}
	pthread_mutex_init(&agers->lock, NULL);
	pthread_cond_init(&agers->changed, NULL);
	for (uint32_t i = 0; i < number; i++) {
		struct ager *ager = &agers->each[i];

		ager->all = agers;
		/* From the last CPU down: the first has the thread that leads. */
		ager->thread = start_on_cpu(run, ager, cpus[count - 1 - i % count], priority,
					    "an ager's thread");
	}
	return 0;
}

static int reply_failed(const struct agers *agers)
{
	for (uint32_t i = 0; i < agers->number; i++) {
		const struct ager *ager = &agers->each[i];

		if (ager->error)
			return reply_error("system", "%s: %s (errno %d)", ager->what,
					   strerror(ager->error), ager->error);
	}
	return 0;
}

/* Whether an ager has done what agers_send() waits for. */
static bool is_there(const struct agers *agers, const struct ager *ager)
{
	if (ager->error || ager->sent == agers->sent)
		return true;
	return agers->again && (!goes_on(agers, ager) || ager->begun == agers->sent);
}

int agers_send(struct agers *agers, uint32_t first, uint32_t count, uint32_t again)
{
	int failed;

	pthread_mutex_lock(&agers->lock);
	agers->first = first;
	agers->again = again;
	/* An ager looks at these two while it ages, without the lock. */
	__atomic_store_n(&agers->count, count, __ATOMIC_RELEASE);
	__atomic_store_n(&agers->sent, agers->sent + 1, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&agers->changed);
	for (uint32_t i = 0; i < agers->number; i++) {
		while (!is_there(agers, &agers->each[i]))
			pthread_cond_wait(&agers->changed, &agers->lock);
	}
	failed = reply_failed(agers);
	pthread_mutex_unlock(&agers->lock);
	return failed;
}

void agers_rest(struct agers *agers)
{
	pthread_mutex_lock(&agers->lock);
	__atomic_store_n(&agers->count, 0, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&agers->lock);
}

uint64_t agers_stop(struct agers *agers)
{
	uint64_t passes = 0;

	pthread_mutex_lock(&agers->lock);
	agers->stop = true;
	pthread_cond_broadcast(&agers->changed);
	pthread_mutex_unlock(&agers->lock);
	for (uint32_t i = 0; i < agers->number; i++) {
		join(agers->each[i].thread);
		passes += agers->each[i].passes;
		if (agers->kind != AGER_PAGE_IDLE)
			lru_gen_close(&agers->each[i].lru_gen);
	}
	return passes;
}
