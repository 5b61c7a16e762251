// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tested pages that userfaultfd(2) write-protects, as VMMs do that save a guest
 * which goes on running. Nobody waits for the faults: they fail at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "commands.h"
#include "ranges.h"
#include "reply.h"
#include "uffd.h"

/* Of all tested pages, from the first command to the end. */
static int uffd = -1;

static int refuse(int fd, const char *what)
{
	reply_errno(what);
	close(fd);
	return -1;
}

int uffd_open(uint64_t needed, uint64_t others, struct uffdio_register *all, const char *absent)
{
	struct uffdio_api api = { .api = UFFD_API, .features = needed | others };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	bool known;

	/* For any other reason there is no such system call. */
	if (fd < 0 && (errno == EPERM || errno == EMFILE || errno == ENOMEM))
		return reply_errno("userfaultfd");
	if (fd < 0)
		return reply_error("system", "%s", absent);
	known = !ioctl(fd, UFFDIO_API, &api);
	if (!known && errno != EINVAL)
		return refuse(fd, "UFFDIO_API");
	/* Kernels before 6.10 accept what they do not have, and do not name it. */
	if (!known || !(api.features & needed)) {
		close(fd);
		return reply_error("system", "%s", absent);
	}
	return ioctl(fd, UFFDIO_REGISTER, all) ? refuse(fd, "UFFDIO_REGISTER") : fd;
}

int uffd_open_slot(const struct vm *vm, uint64_t needed, uint64_t others, const char *absent)
{
	struct uffdio_register all = {
		.range = {
			.start = (uintptr_t)vm->slot,
			.len = (uint64_t)vm->pages << GUEST_PAGE_SHIFT,
		},
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return uffd_open(needed, others, &all, absent);
}

static int open_once(const struct vm *vm)
{
	if (uffd < 0)
		uffd = uffd_open_slot(vm, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_SIGBUS,
				      "no write protection by userfaultfd");
	return uffd < 0 ? -1 : 0;
}

static int protect(struct vm *vm, bool on, const uint32_t *list, uint32_t count)
{
	for (uint32_t i = 0, run; i < count; i += run) {
		struct uffdio_writeprotect change = {
			.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
		};

		run = ranges_run(list + i, count - i);
		change.range.start = (uintptr_t)vm_page(vm, list[i]);
		change.range.len = (uint64_t)run << GUEST_PAGE_SHIFT;
		if (ioctl(uffd, UFFDIO_WRITEPROTECT, &change))
			return reply_errno("UFFDIO_WRITEPROTECT");
		memset(vm->unwritable + list[i], on, run * sizeof(*vm->unwritable));
	}
	reply_ok(" pages=%u", count);
	return 0;
}

int command_uffd_protect(struct vm *vm, char **words)
{
	bool on = !strcmp(words[0], "on");
	uint32_t *list, count;
	int result = -1;

	if (!on && strcmp(words[0], "off"))
		return reply_error("usage", "expected: uffd-protect on|off RANGES");
	if (vm->backing != BACKING_ANON || vm->second)
		return reply_error("usage", "only memory of the backing anon is protected");
	if (vcpus_check_idle(vm))
		return -1;
	list = new_pages(vm);
	if (!parse_pages(vm, words[1], list, &count) && !open_once(vm))
		result = protect(vm, on, list, count);
	free(list);
	return result;
}
