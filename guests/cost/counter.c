// SPDX-License-Identifier: GPL-2.0-only
#include "counter.h"

#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "reply.h"

static int open_of(pid_t pid, bool descendants)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_HARDWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_HW_INSTRUCTIONS,
		.exclude_user = 1,
		.exclude_guest = 1,
		.pinned = 1,
		.inherit = descendants,
	};
	int fd = syscall(SYS_perf_event_open, &attr, pid, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		die_errno("perf_event_open of retired instructions");
	return fd;
}

int counter_open(void)
{
	return open_of(0, false);
}

int counter_open_thread(pid_t pid)
{
	return open_of(pid, false);
}

int counter_open_descendants(pid_t pid)
{
	return open_of(pid, true);
}

uint64_t counter_read(int fd)
{
	uint64_t count;

	if (read(fd, &count, sizeof(count)) != sizeof(count))
		die_errno("read of the counter of instructions");
	return count;
}
