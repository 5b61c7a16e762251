// SPDX-License-Identifier: GPL-2.0-only
#include "commands.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "array_size.h"
#include "ranges.h"
#include "reply.h"

#define MAX_WORDS 6

static const struct command {
	const char *name;
	int words;		/* that follow the name, exactly */
	const char *usage;
	int (*run)(struct vm *vm, char **words);
} commands[] = {
	{ "populate", 0, "populate", command_populate },
	{ "touch", 3, "touch read|write|fetch|walk|set-af|set-dirty VCPU RANGES",
	  command_touch },
	{ "touch-aging", 4, "touch-aging read|write VCPU RANGES MICROSECONDS",
	  command_touch_aging },
	{ "touch-both", 5, "touch-both VCPU WRITTEN VCPU READ MICROSECONDS", command_touch_both },
	{ "write-dropped", 3, "write-dropped WRITER READER RANGES", command_write_dropped },
	{ "plant", 1, "plant RANGES", command_plant },
	{ "hafdbs", 0, "hafdbs", command_hafdbs },
	{ "entries", 1, "entries RANGES", command_entries },
	{ "verify", 1, "verify RANGES", command_verify },
	{ "pfns", 0, "pfns", command_pfns },
	{ "flags", 0, "flags", command_flags },
	{ "flagged", 1, "flagged FLAG", command_flagged },
	{ "stage2", 0, "stage2", command_stage2 },
	{ "drain", 0, "drain", command_drain },
	{ "idle-mark", 0, "idle-mark", command_idle_mark },
	{ "idle-read", 0, "idle-read", command_idle_read },
	{ "idle-again", 0, "idle-again", command_idle_again },
	{ "walk", 0, "walk", command_walk },
	{ "reclaim", 1, "reclaim PAGES", command_reclaim },
	{ "squeeze", 1, "squeeze PAGES", command_squeeze },
	{ "clock", 0, "clock", command_clock },
	{ "flush", 0, "flush", command_flush },
	{ "dirty-log", 1, "dirty-log on|off", command_dirty_log },
	{ "dirty", 0, "dirty", command_dirty },
	{ "clear-log", 1, "clear-log RANGES", command_clear_log },
	{ "harvest", 2, "harvest VCPU ENTRIES", command_harvest },
	{ "reset-rings", 0, "reset-rings", command_reset_rings },
	{ "readonly", 1, "readonly on|off", command_readonly },
	{ "refused", 0, "refused", command_refused },
	{ "mprotect", 2, "mprotect read|write RANGES", command_mprotect },
	{ "uffd-protect", 2, "uffd-protect on|off RANGES", command_uffd_protect },
	{ "pagemap-scan", 1, "pagemap-scan protect|get", command_pagemap_scan },
	{ "snapshot", 1, "snapshot take|look|drop", command_snapshot },
	{ "replace", 1, "replace RANGES", command_replace },
	{ "take", 1, "take RANGES", command_take },
	{ "move", 2, "move away|leave|uffd RANGES", command_move },
	{ "moved", 1, "moved look|back", command_moved },
	{ "move-slot", 0, "move-slot", command_move_slot },
	{ "slot", 1, "slot on|off", command_slot },
	{ "slot-beyond", 0, "slot-beyond", command_slot_beyond },
	{ "lock", 2, "lock on|off RANGES", command_lock },
	{ "reset", 0, "reset", command_reset },
	{ "spin", 3, "spin read|write VCPU RANGES", command_spin },
	{ "spin-stop", 1, "spin-stop VCPU", command_spin_stop },
	{ "spin-count", 1, "spin-count VCPU", command_spin_count },
	{ "spin-wait", 2, "spin-wait VCPU TOUCHES", command_spin_wait },
	{ "spin-value", 1, "spin-value VCPU", command_spin_value },
	{ "pin", 3, "pin VCPU CPU other|fifo", command_pin },
	{ "race", 5, "race SEED ROUNDS AGERS AGER OPPONENT", command_race },
	{ "churn", 2, "churn COUNT idle|run|slots|owner|too-large", command_churn },
	{ "crowd", 1, "crowd COUNT", command_crowd },
	{ "protected-vm", 0, "protected-vm", command_protected_vm },
	{ "give", 2, "give KEEPER vm|vcpu|vm-stats|vcpu-stats", command_give },
	{ "advise", 2,
	  "advise dontneed|free|cold|pageout|willneed|remove|hugepage|nohugepage|dontdump|collapse RANGES",
	  command_advise },
};

/* Splits at single spaces; returns the number of words, MAX_WORDS + 1 if too many. */
static int split(char *line, char **words)
{
	int count = 0;
	char *word;

	while ((word = strsep(&line, " "))) {
		if (count == MAX_WORDS)
			return MAX_WORDS + 1;
		words[count++] = word;
	}
	return count;
}

static int run_one(struct vm *vm, char *text)
{
	char *words[MAX_WORDS];
	int count = split(text, words);

	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		if (strcmp(words[0], commands[i].name))
			continue;
		if (count - 1 != commands[i].words)
			return reply_error("usage", "expected: %s", commands[i].usage);
		return commands[i].run(vm, words + 1);
	}
	return reply_error("usage", "unknown command");
}

bool command_run(void *context, char *line)
{
	struct vm *vm = context;
	char *text;

	if (!strcmp(line, "quit")) {
		reply_ok("%s", "");
		return false;
	}
	while ((text = strsep(&line, ";"))) {
		if (run_one(vm, text))
			break;
		if (line)
			reply_next();
	}
	return true;
}

int parse_number(const char *word, uint32_t limit, const char *what, uint32_t *number)
{
	uint64_t value = 0;
	const char *at = word;

	for (; isdigit((unsigned char)*at) && value < limit; at++)
		value = value * 10 + (*at - '0');
	if (at == word || *at || value >= limit)
		return reply_error("usage", "%s must be a number below %u", what, limit);
	*number = value;
	return 0;
}

int parse_vcpu(struct vm *vm, const char *word, struct vcpu **vcpu)
{
	uint32_t id;

	if (parse_number(word, vm->vcpu_count, "VCPU", &id))
		return -1;
	*vcpu = &vm->vcpus[id];
	return 0;
}

uint32_t *new_pages(const struct vm *vm)
{
	uint32_t *list = malloc(vm->pages * sizeof(*list));

	if (!list)
		die("out of memory");
	return list;
}

int parse_pages(const struct vm *vm, const char *word, uint32_t *list, uint32_t *count)
{
	const char *why;
	int64_t found = ranges_parse(word, vm->pages, list, &why);

	if (found < 0)
		return reply_error("usage", "RANGES: %s", why);
	*count = found;
	return 0;
}

int parse_task(struct vm *vm, char **words, struct vcpu **vcpu, uint32_t *count)
{
	if (parse_vcpu(vm, words[0], vcpu) || vcpu_check_idle(*vcpu) ||
	    parse_pages(vm, words[1], (*vcpu)->list, count))
		return -1;
	return 0;
}
