// SPDX-License-Identifier: GPL-2.0-only
/*
 * A child that has the tested pages as they were when it was made, as programs that
 * save a running guest do: its memory is copied on the first write to it (fork(2)).
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "commands.h"
#include "entries.h"
#include "reply.h"

#define ALL_RIGHT UINT32_MAX

static uint64_t *entries;	/* of each page when the child was made */
static pid_t child;
static int channel;	/* to it, if there is one */

/* The first page that does not hold what it did, ALL_RIGHT if none. */
static uint32_t first_wrong(const struct vm *vm)
{
	for (uint32_t page = 0; page < vm->pages; page++) {
		const char *at = vm_page(vm, page);

		if (__atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE) != vm->expected[page] ||
		    entry_of(vm, page) != entries[page])
			return page;
	}
	return ALL_RIGHT;
}

/* Has one thread, and calls nothing that may wait for another. */
static _Noreturn void live(const struct vm *vm, int end)
{
	char asked;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Nothing else is to stay open here, the VM least of all, nor mapped what keeps it. */
	for (unsigned int i = 0; i < vm->vcpu_count; i++)
		if (munmap(vm->vcpus[i].run, vm->vcpus[i].run_size))
			_exit(EXIT_FAILURE);
	if (dup2(end, STDIN_FILENO) < 0 || close_range(STDIN_FILENO + 1, ~0U, 0))
		_exit(EXIT_FAILURE);
	while (read(STDIN_FILENO, &asked, 1) == 1) {
		uint32_t wrong = first_wrong(vm);

		if (write(STDIN_FILENO, &wrong, sizeof(wrong)) != sizeof(wrong))
			break;
	}
	_exit(EXIT_SUCCESS);
}

static int take(struct vm *vm)
{
	int ends[2];

	if (child)
		return reply_error("usage", "there is a snapshot already");
	/* The child has to know what it has; it cannot ask for it when that has changed. */
	entries = realloc(entries, vm->pages * sizeof(*entries));
	if (!entries)
		die("out of memory");
	for (uint32_t page = 0; page < vm->pages; page++)
		entries[page] = entry_of(vm, page);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return reply_errno("socketpair");
	child = fork();
	if (!child)
		live(vm, ends[1]);
	close(ends[1]);
	channel = ends[0];
	if (child > 0) {
		reply_ok("%s", "");
		return 0;
	}
	child = 0;
	reply_errno("fork");
	close(channel);
	return -1;
}

static int look(const struct vm *vm)
{
	uint32_t wrong;

	/* No SIGPIPE: that would end this process as well. */
	if (send(channel, "", 1, MSG_NOSIGNAL) != 1 ||
	    read(channel, &wrong, sizeof(wrong)) != sizeof(wrong))
		return reply_error("system", "the snapshot's process has ended");
	if (wrong != ALL_RIGHT)
		return reply_error("data", "page=%u of the snapshot has changed", wrong);
	reply_ok(" pages=%u", vm->pages);
	return 0;
}

static int drop(void)
{
	close(channel);
	waitpid(child, NULL, 0);
	child = 0;
	reply_ok("%s", "");
	return 0;
}

int command_snapshot(struct vm *vm, char **words)
{
	if (!strcmp(words[0], "take"))
		return take(vm);
	if (strcmp(words[0], "look") && strcmp(words[0], "drop"))
		return reply_error("usage", "expected: snapshot take|look|drop");
	if (!child)
		return reply_error("usage", "there is no snapshot");
	return words[0][0] == 'l' ? look(vm) : drop();
}
