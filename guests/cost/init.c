// SPDX-License-Identifier: GPL-2.0-only
/*
 * The only program of a host that counts instructions: it proves which kernel runs, measures what
 * aging costs that kernel, says so on the console (docs/cost.md), and switches the machine off.
 *
 * The command line of the kernel has what it is told:
 *
 *	kvm_cost.sizes=N,N,...	numbers of tested pages
 *	kvm_cost.order=down	the largest first, and reclaim before aging
 *	kvm_cost.ballast=N	pages that are taken before anything is measured
 */
#include <fcntl.h>
#include <inttypes.h>
#include <linux/random.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "array_size.h"
#include "files.h"
#include "measure.h"
#include "reply.h"
#include "say.h"
#include "threads.h"

#define PROTOCOL 1
#define PAGE 4096
#define MAX_SIZES 8
#define SWAP_BYTES "67108864"
#define SWAP_PAGES (67108864 / PAGE)
#define MAX_FILE (1 << 20)

static const struct process {
	const char *name;
	void (*run)(uint32_t pages);
} processes[] = {
	{ "bare", measure_bare },
	{ "idle", measure_idle },
	{ "walk", measure_walk },
	{ "reclaim", measure_reclaim },
	{ "damon", measure_damon },
	{ "khugepaged", measure_khugepaged },
};

static char cmdline[2048];

static void mount_all(void)
{
	static const struct {
		const char *type, *on;
	} mounts[] = {
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "devtmpfs", "/dev" },
		{ "debugfs", "/sys/kernel/debug" },
		{ "tracefs", "/sys/kernel/tracing" },
		{ "cgroup2", "/sys/fs/cgroup" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(mounts); i++) {
		if (mount(mounts[i].type, mounts[i].on, mounts[i].type, 0, NULL))
			die_errno(mounts[i].on);
	}
}

/* The text behind kvm_cost.NAME= on the kernel's command line, or "". */
static const char *told(const char *name)
{
	static char value[128];
	char key[64];
	const char *at;

	snprintf(key, sizeof(key), " kvm_cost.%s=", name);
	at = strstr(cmdline, key);
	value[0] = '\0';
	if (at)
		sscanf(at + strlen(key), "%127s", value);
	return value;
}

static void say_file(const char *name, const char *path)
{
	static char bytes[MAX_FILE];

	say_bytes(name, (unsigned char *)bytes, file_read(path, bytes, sizeof(bytes)));
}

static void prove(void)
{
	struct utsname uts;

	uname(&uts);
	say("begin %d", PROTOCOL);
	say("release %.64s", uts.release);
	say_file("notes", "/sys/kernel/notes");
	say_file("config", "/proc/config.gz");
	say("kvm %s", access("/dev/kvm", R_OK | W_OK) ? "no" : "yes");
}

/* Writes a head as mkswap(8) does; see union swap_header in include/linux/swap.h. */
static void use_swap(void)
{
	static char head[PAGE];
	static const uint32_t info[] = { 1, SWAP_PAGES - 1 };	/* version, last page */
	int fd;

	memcpy(head + 1024, info, sizeof(info));
	memcpy(head + PAGE - 10, "SWAPSPACE2", 10);
	file_write("/sys/block/zram0/disksize", SWAP_BYTES);
	fd = open("/dev/zram0", O_RDWR | O_CLOEXEC);
	if (fd < 0 || write(fd, head, sizeof(head)) != sizeof(head) || close(fd))
		die_errno("/dev/zram0");
	if (swapon("/dev/zram0", 0))
		die_errno("swapon");
}

static void take_ballast(uint32_t pages)
{
	char *memory;

	/* One more, so that no process has a mapping less. */
	memory = mmap(NULL, ((size_t)pages + 1) * PAGE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		die_errno("mmap of ballast");
	for (uint32_t page = 0; page < pages; page++)
		memory[(size_t)page * PAGE] = 1;
}

/*
 * This machine is not random, so the kernel would wait for entropy until it is off, and make each
 * of its random numbers by a way that is ten times as long: DAMON takes one for each page.
 */
static void pretend_entropy(void)
{
	static const struct {
		struct rand_pool_info head;
		uint32_t words[8];
	} pool = { .head = { .entropy_count = 256, .buf_size = 32 } };
	int fd = open("/dev/random", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) || close(fd))
		die_errno("entropy for /dev/random");
}

/* Runs it in a process and a memcg of its own. */
static void run_process(const struct process *process, uint32_t pages)
{
	char cgroup[64], procs[96];
	int status = -1;
	pid_t pid;

	snprintf(cgroup, sizeof(cgroup), "/sys/fs/cgroup/%s-%" PRIu32, process->name, pages);
	snprintf(procs, sizeof(procs), "%s/cgroup.procs", cgroup);
	if (mkdir(cgroup, 0755))
		die_errno(cgroup);
	pid = fork();
	if (pid < 0)
		die_errno("fork");
	if (!pid) {
		file_write(procs, "0");
		process->run(pages);
		_exit(EXIT_SUCCESS);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		say("failed %s pages=%" PRIu32 " status=0x%x", process->name, pages, status);
	rmdir(cgroup);
}

static size_t sizes_of(uint32_t *sizes)
{
	char *rest = strdup(told("sizes")), *one;
	size_t count = 0;

	while (rest && (one = strsep(&rest, ",")) && count < MAX_SIZES)
		sizes[count++] = strtoul(one, NULL, 10);
	return count;
}

static void measure_all(void)
{
	static const struct process calls[] = {
		{ "calls", count_calls },
		{ "calls-damon", count_damon },
		{ "calls-khugepaged", count_khugepaged },
	};
	const size_t kinds = ARRAY_SIZE(processes);
	bool down = !strcmp(told("order"), "down");
	uint32_t sizes[MAX_SIZES];
	size_t count = sizes_of(sizes);

	for (size_t i = 0; i < count * kinds; i++) {
		size_t at = down ? count * kinds - 1 - i : i;

		run_process(&processes[at % kinds], sizes[at / kinds]);
	}
	/* Last, as tracing changes the code of the kernel. */
	for (size_t i = 0; i < count * ARRAY_SIZE(calls); i++)
		run_process(&calls[i % ARRAY_SIZE(calls)], sizes[i / ARRAY_SIZE(calls)]);
}

int main(void)
{
	reply_init();
	mount_all();
	file_read("/proc/cmdline", cmdline, sizeof(cmdline));
	prove();
	file_write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	/* From then on it is silent about what it does. */
	file_write("/proc/sys/vm/drop_caches", "4");
	pretend_entropy();
	use_swap();
	take_ballast(strtoul(told("ballast"), NULL, 10));
	measure_all();
	say("end");
	sync();
	reboot(RB_POWER_OFF);
	return EXIT_FAILURE;
}
