// SPDX-License-Identifier: GPL-2.0-only
/*
 * The only process of a Linux guest: it touches pages on command, so that the
 * host knows which guest pages were touched, how, and by which vCPU. Commands
 * come and replies go over the console; docs/linux-guest.md has them.
 *
 * The tested pages are anonymous memory of 4 KiB pages, locked, so each keeps
 * its guest page frame; /proc/self/pagemap tells which that is. Nobody else in
 * the guest has a reason to access what they hold, and this process accesses
 * none by guess: see touch().
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <termios.h>
#include <unistd.h>

#include "compiler.h"

#define PAGE_SIZE	4096
#define PAGES_MAX	(1 << 20)
#define CPUS_MAX	16
/* How often the last page of a list follows itself: see touch(). */
#define LIST_TAIL	64
/* A line holds a bit for each page, as hexadecimal digits, and some words. */
#define LINE_BYTES	(PAGES_MAX / 4 + 64)
/* Kernel messages that are as urgent as a warning still come between replies. */
#define CONSOLE_LEVEL	5
#define KLOG_SET_LEVEL	8

#define PM_PRESENT	(1ULL << 63)
#define PM_PFN		((1ULL << 55) - 1)

static char *memory;
static uint32_t pages;
static unsigned int cpus;
/* What was written to each page last, and what the next write will write. */
static uint64_t *written;
static uint64_t next_value = 1;
/* The pages to touch, rising, and LIST_TAIL more. */
static uint32_t *list;

/* One touch: handed to the thread of a CPU, and back when @done. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int cpu;
	bool given;
	bool write;
	uint32_t count;
	int64_t wrong;
} job = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, false, false, 0, -1 };

static void __printf(1, 2) reply(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	fputs("@guest ", stdout);
	vprintf(format, arguments);
	va_end(arguments);
	putchar('\n');
	fflush(stdout);
}

static void __noreturn power_off(void)
{
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void __noreturn give_up(const char *what)
{
	reply("fatal %s: %s", what, strerror(errno));
	power_off();
}

static uint64_t load(const uint64_t *from)
{
	uint64_t value;

	asm volatile("ldr %0, [%1]" : "=r"(value) : "r"(from) : "memory");
	return value;
}

static void store(uint64_t *to, uint64_t value)
{
	asm volatile("str %0, [%1]" : : "r"(value), "r"(to) : "memory");
}

/*
 * One load or store of 8 bytes at the start of each page of the list. A CPU that sets AF by itself
 * may do so for an access that it makes by guess (Arm ARM, "Hardware management of the Access
 * flag"). So no branch chooses among pages; none is accessed before it is known that the list has
 * it, which the two barriers see to (see payload.c of kvm-guest); and behind the list's end stands
 * no other page.
 */
static void touch(bool write)
{
	job.wrong = -1;
	for (uint32_t i = 0; i < job.count; i++) {
		uint32_t page;
		uint64_t *word;

		asm volatile("dsb sy; isb" : : : "memory");
		page = list[i];
		word = (uint64_t *)(memory + (size_t)page * PAGE_SIZE);
		if (write) {
			written[page] = next_value++;
			store(word, written[page]);
		} else if (load(word) != written[page] && job.wrong < 0) {
			job.wrong = page;
		}
	}
}

static void bind_to(unsigned int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		give_up("sched_setaffinity");
}

static void *serve_cpu(void *argument)
{
	unsigned int cpu = (uintptr_t)argument;

	bind_to(cpu);
	pthread_mutex_lock(&job.lock);
	for (;;) {
		while (!job.given || job.cpu != cpu)
			pthread_cond_wait(&job.changed, &job.lock);
		touch(job.write);
		job.given = false;
		pthread_cond_broadcast(&job.changed);
	}
	return NULL;
}

static void hand_over(unsigned int cpu, bool write, uint32_t count)
{
	pthread_mutex_lock(&job.lock);
	job.cpu = cpu;
	job.write = write;
	job.count = count;
	job.given = true;
	pthread_cond_broadcast(&job.changed);
	while (job.given)
		pthread_cond_wait(&job.changed, &job.lock);
	pthread_mutex_unlock(&job.lock);
}

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/*
 * Lists the pages of a set, of which each digit stands for four pages, its lowest bit for the
 * first of them. Returns how many there are, -1 if it is no set of pages.
 */
static int64_t parse_set(const char *text)
{
	uint32_t count = 0;

	if (strlen(text) != (pages + 3) / 4)
		return -1;
	for (uint32_t page = 0; page < pages; page++) {
		int value = digit(text[page / 4]);

		if (value < 0)
			return -1;
		if (value >> page % 4 & 1)
			list[count++] = page;
	}
	for (uint32_t i = 0; count && i < LIST_TAIL; i++)
		list[count + i] = list[count - 1];
	return count;
}

static void command_touch(char *rest)
{
	char access[8];
	unsigned int cpu;
	int64_t count;
	int used = 0;

	if (sscanf(rest, "%7s %u %n", access, &cpu, &used) != 2 || !used || cpu >= cpus ||
	    (strcmp(access, "read") && strcmp(access, "write"))) {
		reply("error usage touch read|write CPU SET");
		return;
	}
	count = parse_set(rest + used);
	if (count < 0) {
		reply("error usage not a set of pages");
		return;
	}
	hand_over(cpu, !strcmp(access, "write"), count);
	if (job.wrong >= 0)
		reply("error data page=%" PRId64, job.wrong);
	else
		reply("ok cpu=%u touched=%u", cpu, job.count);
}

static uint64_t frame_of(int fd, uint32_t page)
{
	off_t at = ((uintptr_t)memory / PAGE_SIZE + page) * sizeof(uint64_t);
	uint64_t entry;

	if (pread(fd, &entry, sizeof(entry), at) != sizeof(entry))
		give_up("/proc/self/pagemap");
	if (!(entry & PM_PRESENT) || !(entry & PM_PFN))
		give_up("a tested page without a page frame");
	return entry & PM_PFN;
}

/* Runs of page frames that rise or fall by one: COUNT+FIRST or COUNT-FIRST. */
static void command_frames(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint32_t page = 0;

	if (fd < 0)
		give_up("/proc/self/pagemap");
	fputs("@guest ok frames=", stdout);
	while (page < pages) {
		uint64_t first = frame_of(fd, page);
		uint32_t count = 1;
		int64_t step = 1;

		if (page + 1 < pages && frame_of(fd, page + 1) == first - 1)
			step = -1;
		while (page + count < pages &&
		       frame_of(fd, page + count) == first + step * (int64_t)count)
			count++;
		printf("%s%x%c%" PRIx64, page ? "," : "", count, step > 0 ? '+' : '-', first);
		page += count;
	}
	putchar('\n');
	fflush(stdout);
	close(fd);
}

static void set_up_console(void)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &raw))
		give_up("tcgetattr");
	cfmakeraw(&raw);
	raw.c_oflag |= OPOST | ONLCR;
	if (tcsetattr(STDIN_FILENO, TCSANOW, &raw))
		give_up("tcsetattr");
	klogctl(KLOG_SET_LEVEL, NULL, CONSOLE_LEVEL);
}

static void set_up_memory(void)
{
	char line[4096] = "";
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	char *found;

	if (fd < 0 || read(fd, line, sizeof(line) - 1) < 0)
		give_up("/proc/cmdline");
	close(fd);
	found = strstr(line, "kvm_harness.pages=");
	pages = found ? strtoul(strchr(found, '=') + 1, NULL, 10) : 0;
	if (!pages || pages > PAGES_MAX) {
		errno = EINVAL;
		give_up("kvm_harness.pages");
	}
	memory = mmap(NULL, (size_t)pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	written = calloc(pages, sizeof(*written));
	list = calloc(pages + LIST_TAIL, sizeof(*list));
	if (memory == MAP_FAILED || !written || !list)
		give_up("memory");
	/* A kernel without huge pages refuses this, and needs none of it. */
	madvise(memory, (size_t)pages * PAGE_SIZE, MADV_NOHUGEPAGE);
	if (mlock(memory, (size_t)pages * PAGE_SIZE))
		give_up("mlock");
}

static void set_up_threads(void)
{
	pthread_attr_t attributes;
	pthread_t thread;

	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 << 10);
	for (uintptr_t cpu = 0; cpu < cpus && cpu < CPUS_MAX; cpu++) {
		errno = pthread_create(&thread, &attributes, serve_cpu, (void *)cpu);
		if (errno)
			give_up("pthread_create");
	}
}

int main(void)
{
	static char line[LINE_BYTES];

	if (mount("proc", "/proc", "proc", 0, NULL))
		give_up("/proc");
	set_up_console();
	set_up_memory();
	set_up_threads();
	reply("ready protocol=1 cpus=%u pages=%u", cpus, pages);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\r\n")] = '\0';
		if (!strncmp(line, "touch ", 6))
			command_touch(line + 6);
		else if (!strcmp(line, "frames"))
			command_frames();
		else if (!strcmp(line, "off"))
			power_off();
		else
			reply("error usage unknown command");
	}
	give_up("console");
}
