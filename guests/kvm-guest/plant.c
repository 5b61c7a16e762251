// SPDX-License-Identifier: GPL-2.0-only
/*
 * Puts into tested pages what makes them code that can be run and tables that can be
 * walked through. Where in a page that stands, no other command reads or writes.
 */
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "reply.h"
#include "stage1.h"

#define INSTRUCTION_RET 0xd65f03c0U

static void plant(const struct vm *vm, uint32_t page)
{
	char *at = vm_page(vm, page);
	char *code = at + PLANTED_CODE_OFFSET;
	uint64_t entry = stage1_block(vm_payload_ipa(vm));
	uint64_t unused = vm_unused_entry(vm);
	uint32_t ret = INSTRUCTION_RET;

	memcpy(code, &ret, sizeof(ret));
	memcpy(at + PLANTED_ENTRY_OFFSET, &entry, sizeof(entry));
	memcpy(at + UNUSED_ENTRY_OFFSET, &unused, sizeof(unused));
	__builtin___clear_cache(code, code + sizeof(ret));
}

int command_plant(struct vm *vm, char **words)
{
	uint32_t *list = new_pages(vm), count;
	int result = -1;

	if (!parse_pages(vm, words[0], list, &count)) {
		for (uint32_t i = 0; i < count; i++)
			plant(vm, list[i]);
		reply_ok(" pages=%u", count);
		result = 0;
	}
	free(list);
	return result;
}
