// SPDX-License-Identifier: GPL-2.0-only
#include "idle_ager.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lru_gen.h"
#include "page_idle.h"
#include "protocol.h"
#include "reply.h"
#include "serve.h"
#include "threads.h"

/* A word of the bitmap, and those bits in it that are set. */
struct word {
	uint64_t index;
	uint64_t bits;
};

/* In the place of words: all pages of the memcg that this process is in, by MGLRU's walk. */
#define WALK "walk"

/* usleep() need not take a second. */
#define MOST_WAIT_MS 999

struct idle_ager {
	int bitmap;
	bool walks;
	struct lru_gen lru_gen;	/* if it walks */
	struct word *words;
	size_t count;
	pthread_t thread;
	bool running;
	bool stop;
	uint64_t passes;
	int error;		/* errno of what ended the thread */
};

static int walk_from_now_on(struct idle_ager *ager)
{
	if (!ager->walks && lru_gen_open(&ager->lru_gen))
		return reply_errno("lru_gen of the memcg that the ager is in");
	ager->walks = true;
	ager->count = 0;
	return 0;
}

/* Reads "INDEX:BITS,...", in hexadecimal digits, or WALK, in place of the words so far. */
static int parse(struct idle_ager *ager, const char *text)
{
	size_t room = 1;
	char *end;

	if (!strcmp(text, WALK))
		return walk_from_now_on(ager);
	if (ager->walks)
		lru_gen_close(&ager->lru_gen);
	ager->walks = false;
	for (const char *at = text; *at; at++)
		room += *at == ',';
	free(ager->words);
	ager->count = 0;
	ager->words = calloc(room, sizeof(*ager->words));
	if (!ager->words)
		die("out of memory");
	for (;; text = end + 1) {
		struct word *word = &ager->words[ager->count++];

		word->index = strtoull(text, &end, 16);
		if (end == text || *end != ':')
			return reply_error("usage", "not INDEX:BITS,...");
		text = end + 1;
		word->bits = strtoull(text, &end, 16);
		if (end == text || (*end && *end != ','))
			return reply_error("usage", "not INDEX:BITS,...");
		if (!*end)
			return 0;
	}
}

/* Marks the pages idle once, or walks once; 0, or errno. */
static int mark(const struct idle_ager *ager)
{
	if (ager->walks)
		return lru_gen_age(&ager->lru_gen, 0) ? errno : 0;
	for (size_t i = 0; i < ager->count; i++) {
		const struct word *word = &ager->words[i];
		ssize_t size = sizeof(word->bits);

		errno = EIO;
		if (pwrite(ager->bitmap, &word->bits, size, word->index * size) != size)
			return errno;
	}
	return 0;
}

/* Reads which of the pages are idle still, which ages those that are; 0, or errno. */
static int look(const struct idle_ager *ager, uint64_t *idle)
{
	for (size_t i = 0; i < ager->count; i++) {
		const struct word *word = &ager->words[i];
		ssize_t size = sizeof(word->bits);

		errno = EIO;
		if (pread(ager->bitmap, &idle[i], size, word->index * size) != size)
			return errno;
		idle[i] &= word->bits;
	}
	return 0;
}

static void *age(void *context)
{
	struct idle_ager *ager = context;

	while (!ager->error && !__atomic_load_n(&ager->stop, __ATOMIC_ACQUIRE)) {
		ager->error = mark(ager);
		ager->passes++;
	}
	return NULL;
}

static int start(struct idle_ager *ager)
{
	ager->stop = false;
	ager->passes = 0;
	ager->error = 0;
	errno = pthread_create(&ager->thread, NULL, age, ager);
	if (errno)
		return reply_errno("pthread_create");
	ager->running = true;
	return 0;
}

/* With errno set. */
static void reply_failed(const struct idle_ager *ager)
{
	reply_errno(ager->walks ? "aging by lru_gen" : "pwrite of " PAGE_IDLE_BITMAP);
}

static void run_mark(struct idle_ager *ager, const char *words, unsigned int wait_ms, bool goes_on)
{
	if (ager->running) {
		reply_error("usage", "it ages already");
		return;
	}
	if (parse(ager, words))
		return;
	usleep(wait_ms * 1000);
	errno = mark(ager);
	if (errno)
		reply_failed(ager);
	else if (!goes_on || !start(ager))
		reply_ok(" words=%zu", ager->count);
}

/* Reads "MS WORDS"; whoever acts when this is at work already is to have begun by then. */
static void run_mark_after(struct idle_ager *ager, const char *text)
{
	unsigned long wait_ms;
	char *end;

	wait_ms = strtoul(text, &end, 10);
	if (end == text || *end != ' ' || wait_ms > MOST_WAIT_MS)
		reply_error("usage", "not MS WORDS, with up to %d ms", MOST_WAIT_MS);
	else
		run_mark(ager, end + 1, wait_ms, false);
}

static void print_words(const struct idle_ager *ager, const uint64_t *idle)
{
	const char *separator = " idle=";

	for (size_t i = 0; i < ager->count; i++) {
		if (!idle[i])
			continue;
		fprintf(reply, "%s%" PRIx64 ":%" PRIx64, separator, ager->words[i].index, idle[i]);
		separator = ",";
	}
	if (*separator != ',')
		fprintf(reply, "%s-", separator);
}

static void run_read(struct idle_ager *ager, const char *words)
{
	uint64_t *idle;

	if (ager->running) {
		reply_error("usage", "it ages already");
		return;
	}
	if (parse(ager, words))
		return;
	idle = calloc(ager->count, sizeof(*idle));
	if (!idle)
		die("out of memory");
	errno = look(ager, idle);
	if (errno) {
		reply_errno("pread of " PAGE_IDLE_BITMAP);
	} else {
		reply_ok(" words=%zu", ager->count);
		print_words(ager, idle);
	}
	free(idle);
}

static void run_stop(struct idle_ager *ager)
{
	if (!ager->running) {
		reply_error("usage", "it does not age");
		return;
	}
	__atomic_store_n(&ager->stop, true, __ATOMIC_RELEASE);
	join(ager->thread);
	ager->running = false;
	errno = ager->error;
	if (errno)
		reply_failed(ager);
	else
		reply_ok(" passes=%" PRIu64, ager->passes);
}

static bool run(void *context, char *line)
{
	char *words = strchr(line, ' ');

	if (words)
		*words++ = 0;
	if (words && !strcmp(line, "mark"))
		run_mark(context, words, 0, false);
	else if (words && !strcmp(line, "mark-after"))
		run_mark_after(context, words);
	else if (words && !strcmp(line, "age"))
		run_mark(context, words, 0, true);
	else if (words && !strcmp(line, "read"))
		run_read(context, words);
	else if (!words && !strcmp(line, "stop"))
		run_stop(context);
	else
		reply_error("usage", "expected: mark, mark-after MS, age or read WORDS, or stop");
	return true;
}

_Noreturn void idle_ager_serve(double seconds)
{
	struct idle_ager ager = { .bitmap = open(PAGE_IDLE_BITMAP, O_RDWR | O_CLOEXEC) };

	alarm((unsigned int)seconds + 1);
	if (ager.bitmap < 0)
		die_errno(PAGE_IDLE_BITMAP);
	reply_begin("ready");
	fprintf(reply, " protocol=%d pid=%d idle_ager", PROTOCOL, getpid());
	reply_send();
	serve(run, &ager);
	/* Its thread ends with the process. */
	_exit(EXIT_SUCCESS);
}
