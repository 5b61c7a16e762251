// SPDX-License-Identifier: GPL-2.0-only
/* Tested pages that this process itself may only read (mprotect(2)), under a writable slot. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "commands.h"
#include "ranges.h"
#include "reply.h"

static int protect(struct vm *vm, bool writable, const uint32_t *list, uint32_t count)
{
	int flags = PROT_READ | (writable ? PROT_WRITE : 0);

	for (uint32_t i = 0, run; i < count; i += run) {
		run = ranges_run(list + i, count - i);
		if (mprotect(vm_page(vm, list[i]), (size_t)run << GUEST_PAGE_SHIFT, flags))
			return reply_errno("mprotect");
		memset(vm->unwritable + list[i], !writable, run * sizeof(*vm->unwritable));
	}
	reply_ok(" pages=%u", count);
	return 0;
}

int command_mprotect(struct vm *vm, char **words)
{
	bool writable = !strcmp(words[0], "write");
	uint32_t *list, count;
	int result = -1;

	if (!writable && strcmp(words[0], "read"))
		return reply_error("usage", "expected: mprotect read|write RANGES");
	if (vm->second)
		return reply_error("usage", "the pages are in two slots");
	if (vcpus_check_idle(vm))
		return -1;
	list = new_pages(vm);
	if (!parse_pages(vm, words[1], list, &count))
		result = protect(vm, writable, list, count);
	free(list);
	return result;
}
