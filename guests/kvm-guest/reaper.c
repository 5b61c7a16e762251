// SPDX-License-Identifier: GPL-2.0-only
#include "reaper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "protocol.h"
#include "reply.h"
#include "serve.h"

/* What a dump may have; the reply is one line. */
#define ROOM (1 << 20)
#define NO_DUMP "-"

struct reaper {
	char dump[ROOM];
	ssize_t size;
	int released;	/* errno of process_mrelease(2), 0 if it did */
	bool waited;	/* others had the CPU meanwhile: the owner may have ended */
};

static int read_dump(struct reaper *reaper, int fd)
{
	ssize_t got;

	do {
		got = read(fd, reaper->dump + reaper->size, ROOM - reaper->size);
		if (got < 0)
			return -1;
		reaper->size += got;
	} while (got && reaper->size < ROOM);
	errno = EFBIG;
	return got ? -1 : 0;
}

static long switches(void)
{
	struct rusage usage;

	if (getrusage(RUSAGE_THREAD, &usage))
		die_errno("getrusage");
	return usage.ru_nvcsw + usage.ru_nivcsw;
}

/*
 * The owner's threads may run on this CPU only, and none of them does while a
 * thread of SCHED_FIFO has it: so the owner has its mm still, and KVM its tables.
 * Without them a dump must not be read: that oopses Linux 6.12. So it is not if
 * this thread had to wait for anything.
 */
static int reap(struct reaper *reaper, pid_t pid, int owner, int dump)
{
	static const struct sched_param urgent = { .sched_priority = 1 };
	int failed = 0;
	long before;

	/* Its pages come now: later it would have to wait for them. */
	memset(reaper->dump, 0, sizeof(reaper->dump));
	if (sched_setscheduler(0, SCHED_FIFO, &urgent))
		return reply_errno("sched_setscheduler");
	before = switches();
	if (kill(pid, SIGKILL)) {
		failed = reply_errno("kill");
	} else {
		reaper->released = syscall(SYS_process_mrelease, owner, 0) ? errno : 0;
		reaper->waited = switches() != before;
		if (dump >= 0 && !reaper->released && !reaper->waited && read_dump(reaper, dump))
			failed = reply_errno("read of the dump");
	}
	return failed;
}

static void print(struct reaper *reaper)
{
	for (ssize_t i = 0; i < reaper->size; i++)
		if (reaper->dump[i] == '\n')
			reaper->dump[i] = ';';
	reply_ok(" errno=%d waited=%d dump=%.*s", reaper->released, reaper->waited,
		 (int)reaper->size, reaper->dump);
}

/* Reads "PID DUMP"; a line of the dump ends with ";" in the reply. */
static void run_reap(struct reaper *reaper, const char *text)
{
	static const struct sched_param usual;
	int owner, dump = -1;
	char *end;
	long pid;

	pid = strtol(text, &end, 10);
	if (end == text || *end != ' ' || pid <= 0 || pid > INT_MAX || !end[1]) {
		reply_error("usage", "not PID DUMP");
		return;
	}
	reaper->size = 0;
	owner = syscall(SYS_pidfd_open, pid, 0);
	if (owner < 0) {
		reply_errno("pidfd_open");
		return;
	}
	if (strcmp(end + 1, NO_DUMP))
		dump = open(end + 1, O_RDONLY | O_CLOEXEC);
	if (dump < 0 && strcmp(end + 1, NO_DUMP))
		reply_errno("open of the dump");
	else if (!reap(reaper, pid, owner, dump))
		print(reaper);
	if (dump >= 0)
		close(dump);
	close(owner);
	sched_setscheduler(0, SCHED_OTHER, &usual);
}

static bool run(void *context, char *line)
{
	if (!strncmp(line, "reap ", strlen("reap ")))
		run_reap(context, line + strlen("reap "));
	else
		reply_error("usage", "expected: reap PID DUMP");
	return true;
}

void reaper_serve(double seconds)
{
	static struct reaper reaper;

	alarm((unsigned int)seconds + 1);
	reply_begin("ready");
	fprintf(reply, " protocol=%d pid=%d reaper", PROTOCOL, getpid());
	reply_send();
	serve(run, &reaper);
	exit(EXIT_SUCCESS);
}
