// SPDX-License-Identifier: GPL-2.0-only
#include "entries.h"

#include <inttypes.h>
#include <stdlib.h>

#include "commands.h"
#include "ranges.h"
#include "reply.h"
#include "stage1.h"

uint64_t entry_of(const struct vm *vm, uint32_t page)
{
	const char *at = vm_page(vm, page) + UNUSED_ENTRY_OFFSET;

	return __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
}

int command_hafdbs(struct vm *vm, char **words)
{
	(void)words;
	if (vcpus_check_idle(vm))
		return -1;
	reply_ok(" hafdbs=%u", vcpu_hafdbs(&vm->vcpus[0]));
	return 0;
}

/* Sorts the entries of these pages by what was done to them; nothing else may have been. */
static int look(const struct vm *vm, const uint32_t *list, uint32_t count, bool *young,
		bool *dirty)
{
	const uint64_t changed = STAGE1_AF | STAGE1_READ_ONLY;
	uint64_t planted = vm_unused_entry(vm);

	for (uint32_t i = 0; i < count; i++) {
		uint64_t entry = entry_of(vm, list[i]);

		if ((entry ^ planted) & ~changed)
			return reply_error("data", "page=%u has 0x%" PRIx64
					   " for the entry 0x%" PRIx64, list[i], entry, planted);
		young[list[i]] = entry & STAGE1_AF;
		dirty[list[i]] = !(entry & STAGE1_READ_ONLY);
	}
	return 0;
}

int command_entries(struct vm *vm, char **words)
{
	uint32_t *list = malloc(vm->pages * sizeof(*list)), count;
	bool *young = calloc(vm->pages, sizeof(*young));
	bool *dirty = calloc(vm->pages, sizeof(*dirty));
	int result = -1;

	if (!list || !young || !dirty)
		die("out of memory");
	if (!parse_pages(vm, words[0], list, &count) && !look(vm, list, count, young, dirty)) {
		reply_ok(" pages=%u young=", count);
		ranges_print(reply, young, vm->pages);
		fprintf(reply, " dirty=");
		ranges_print(reply, dirty, vm->pages);
		result = 0;
	}
	free(dirty);
	free(young);
	free(list);
	return result;
}
