// SPDX-License-Identifier: GPL-2.0-only
/*
 * Idle page tracking of the tested pages. See
 * Documentation/admin-guide/mm/idle_page_tracking.rst.
 *
 * The bitmap has a bit for each PFN and is read and written in words of 64.
 * Writing 0 leaves a page alone, so a write sets only the bits of tested pages.
 * Reading ages the pages that are marked in the same word, those of others too.
 * Of a compound page only the head answers, and it answers for all of its pages.
 */
#include <fcntl.h>
#include <linux/kernel-page-flags.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "idle.h"
#include "page_idle.h"
#include "pagemap.h"
#include "ranges.h"
#include "reply.h"

/* One read or write of a file in sysfs moves a page at most. */
#define RUN_WORDS 512

/* What idle-mark marked. */
static uint64_t *marked_pfns;	/* of each tested page, PFN_NONE if it had none */
static uint64_t *heads;		/* the PFNs to ask, rising, each once */
static size_t head_count;

/* Words that follow each other in the bitmap, and the heads that lie in them. */
struct run {
	uint64_t first_word;
	size_t words;
	size_t first_head;
	size_t end_head;
	uint64_t bits[RUN_WORDS];
};

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static void collect_heads(const struct vm *vm)
{
	size_t unique = 0;

	free(heads);
	heads = malloc(vm->pages * sizeof(*heads));
	if (!heads)
		die("out of memory");
	head_count = 0;
	for (uint32_t page = 0; page < vm->pages; page++) {
		if (marked_pfns[page] != PFN_NONE)
			heads[head_count++] = page_head(marked_pfns[page]);
	}
	qsort(heads, head_count, sizeof(*heads), compare);
	for (size_t i = 0; i < head_count; i++) {
		if (!unique || heads[unique - 1] != heads[i])
			heads[unique++] = heads[i];
	}
	head_count = unique;
}

/* The longest run that begins at the head @from; its bits are those of the heads. */
static void make_run(struct run *run, size_t from)
{
	memset(run, 0, sizeof(*run));
	run->first_word = heads[from] / WORD_BITS;
	run->first_head = from;
	for (run->end_head = from; run->end_head < head_count; run->end_head++) {
		uint64_t pfn = heads[run->end_head];
		uint64_t word = pfn / WORD_BITS - run->first_word;

		if (word > run->words || word >= RUN_WORDS)
			break;
		run->words = word + 1;
		run->bits[word] |= 1ULL << pfn % WORD_BITS;
	}
}

/*
 * What was moved, or -1 with errno. The kernel does not count a last word in
 * which memory ends, though it moves that as well.
 */
static ssize_t transfer(int fd, struct run *run, bool write)
{
	ssize_t word = sizeof(run->bits[0]);
	ssize_t size = run->words * word;
	off_t offset = run->first_word * word;
	ssize_t done = write ? pwrite(fd, run->bits, size, offset) :
			       pread(fd, run->bits, size, offset);
	uint64_t beyond;

	if (done == size - word && !pread(fd, &beyond, word, offset + size))
		return size;
	return done;
}

static bool is_set(const struct run *run, uint64_t pfn)
{
	return run->bits[pfn / WORD_BITS - run->first_word] >> pfn % WORD_BITS & 1;
}

/* Makes the error of a transfer that was not whole the reply. Always returns -1. */
static int reply_failed(const struct run *run, ssize_t done)
{
	if (done < 0)
		return reply_errno(PAGE_IDLE_BITMAP);
	return reply_error("short", "%s: %zd of %zu bytes at word %llu",
			   PAGE_IDLE_BITMAP, done, run->words * sizeof(run->bits[0]),
			   (unsigned long long)run->first_word);
}

/*
 * Goes through all heads: sets their bits, or reads them into @idle. Returns 0,
 * or -1 with the error as the reply.
 */
static int transfer_all(bool write, bool *idle)
{
	int fd = open(PAGE_IDLE_BITMAP, O_RDWR | O_CLOEXEC);
	int result = 0;
	struct run run;

	if (fd < 0)
		return reply_errno(PAGE_IDLE_BITMAP);
	for (size_t i = 0; !result && i < head_count; i = run.end_head) {
		ssize_t done;

		make_run(&run, i);
		done = transfer(fd, &run, write);
		if (done != (ssize_t)(run.words * sizeof(run.bits[0])))
			result = reply_failed(&run, done);
		for (size_t head = i; !write && !result && head < run.end_head; head++)
			idle[head] = is_set(&run, heads[head]);
	}
	close(fd);
	return result;
}

static bool *new_flags(size_t count)
{
	bool *members = calloc(count ? count : 1, sizeof(*members));

	if (!members)
		die("out of memory");
	return members;
}

static uint32_t count_members(const bool *members, uint32_t pages)
{
	uint32_t count = 0;

	for (uint32_t page = 0; page < pages; page++)
		count += members[page];
	return count;
}

static void print_pages(const struct vm *vm, const char *name, const bool *members)
{
	fprintf(reply, " %s=", name);
	ranges_print(reply, members, vm->pages);
}

int command_idle_mark(struct vm *vm, char **words)
{
	bool *unmarked;
	uint32_t absent = 0, missed;

	(void)words;
	free(marked_pfns);
	marked_pfns = pagemap_read(vm);
	page_flags_refresh();
	collect_heads(vm);
	if (transfer_all(true, NULL))
		return -1;

	/* A page that is on no LRU list is passed over in silence: look which are. */
	page_flags_refresh();
	unmarked = new_flags(vm->pages);
	for (uint32_t page = 0; page < vm->pages; page++) {
		if (marked_pfns[page] == PFN_NONE)
			absent++;
		else
			unmarked[page] = !(page_flags(marked_pfns[page]) & 1ULL << KPF_IDLE);
	}
	missed = count_members(unmarked, vm->pages);
	reply_ok(" marked=%u absent=%u", vm->pages - absent - missed, absent);
	print_pages(vm, "unmarked", unmarked);
	free(unmarked);
	return 0;
}

int idle_check_marked(void)
{
	return marked_pfns ? 0 : reply_error("usage", "needs an idle-mark before it");
}

int idle_mark_again(void)
{
	return transfer_all(true, NULL);
}

int command_idle_again(struct vm *vm, char **words)
{
	(void)vm;
	(void)words;
	if (idle_check_marked() || idle_mark_again())
		return -1;
	reply_ok("%s", "");
	return 0;
}

/* 0 if each marked page is where it was, else -1 with the error as the reply. */
static int check_in_place(const struct vm *vm)
{
	uint64_t *now = pagemap_read(vm);
	bool *moved = new_flags(vm->pages);
	int result = 0;

	for (uint32_t page = 0; page < vm->pages; page++)
		moved[page] = marked_pfns[page] != PFN_NONE && marked_pfns[page] != now[page];
	if (count_members(moved, vm->pages)) {
		result = reply_error("moved", "count=%u", count_members(moved, vm->pages));
		print_pages(vm, "pages", moved);
	}
	free(moved);
	free(now);
	return result;
}

static void spread(const struct vm *vm, const bool *head_idle, bool *idle)
{
	page_flags_refresh();
	for (uint32_t page = 0; page < vm->pages; page++) {
		const uint64_t *found;
		uint64_t head;

		if (marked_pfns[page] == PFN_NONE)
			continue;
		head = page_head(marked_pfns[page]);
		found = bsearch(&head, heads, head_count, sizeof(head), compare);
		idle[page] = found && head_idle[found - heads];
	}
}

int command_idle_read(struct vm *vm, char **words)
{
	bool *head_idle, *idle;
	int result = -1;

	(void)words;
	if (idle_check_marked() || check_in_place(vm))
		return -1;
	head_idle = new_flags(head_count);
	idle = new_flags(vm->pages);
	if (!transfer_all(false, head_idle) && !check_in_place(vm)) {
		spread(vm, head_idle, idle);
		reply_ok(" count=%u", count_members(idle, vm->pages));
		print_pages(vm, "idle", idle);
		result = 0;
	}
	free(head_idle);
	free(idle);
	return result;
}
