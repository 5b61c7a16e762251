// SPDX-License-Identifier: GPL-2.0-only
#include <string.h>
#include <time.h>

#include "array_size.h"
#include "race.h"

/* So long the agers have the pages and the vCPUs for themselves, in nanoseconds. */
#define MOMENT 2000000

static int let_be(struct race *race, uint32_t first, uint32_t count)
{
	const struct timespec moment = { .tv_nsec = MOMENT };

	(void)race;
	(void)first;
	(void)count;
	nanosleep(&moment, NULL);
	return 0;
}

static const struct opponent opponents[] = {
	{ .name = "guest", .act = let_be },
	{ .name = "unmap", .act = oppose_by_unmap },
	{ .name = "dontneed", .act = oppose_by_drop },
	{ .name = "timed-drop", .act = oppose_by_drop, .timed = true },
	{
		.name = "two-drops",
		.act = oppose_by_two_drops,
		.waits = true,
		.whole = true,
		.skews = true,
	},
	{ .name = "pageout", .act = oppose_by_pageout },
	{
		.name = "split",
		.act = oppose_by_split,
		.waits = true,
		.whole = true,
		.backing = BACKING_THP,
	},
	{
		.name = "dirty-log",
		.act = oppose_by_log,
		.finish = oppose_by_log_end,
		.waits = true,
		.copies = true,
		.whole = true,
	},
	{
		.name = "slot-delete",
		.act = oppose_by_delete,
		.finish = oppose_by_slot_end,
		.waits = true,
		.unruly = true,
	},
	{
		.name = "slot-move",
		.act = oppose_by_move,
		.finish = oppose_by_slot_end,
		.waits = true,
		.unruly = true,
	},
	{
		.name = "slot-flags",
		.act = oppose_by_flags,
		.finish = oppose_by_slot_end,
		.waits = true,
		.unruly = true,
	},
	{
		.name = "slot-unmap",
		.act = oppose_by_unmapped_slot,
		.finish = oppose_by_slot_end,
		.waits = true,
		.shares = true,
		.unruly = true,
	},
	{ .name = "vms", .act = oppose_by_vm, .waits = true },
};

const struct opponent *opponent_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(opponents); i++) {
		if (!strcmp(opponents[i].name, name))
			return &opponents[i];
	}
	return NULL;
}
