// SPDX-License-Identifier: GPL-2.0-only
#include "stage1.h"

#include "layout.h"

#define DESC_BLOCK	1UL
#define DESC_DEVICE	(0UL << 2)
#define DESC_NORMAL	(1UL << 2)
#define DESC_INNER_SH	(3UL << 8)
#define DESC_AF		(1UL << 10)	/* set, so that nobody has to set it */
#define DESC_PXN	(1UL << 53)
#define DESC_UXN	(1UL << 54)

static void map_gib(uint64_t *table, uint64_t address, uint64_t attributes)
{
	uint64_t index = address >> GIB_SHIFT;

	table[index] = index << GIB_SHIFT | DESC_BLOCK | DESC_AF | DESC_UXN | attributes;
}

void stage1_fill(uint64_t *table, uint64_t end)
{
	map_gib(table, REPORT_IPA, DESC_DEVICE | DESC_PXN);
	for (uint64_t at = SLOT_IPA; at < end; at += 1UL << GIB_SHIFT)
		map_gib(table, at, DESC_NORMAL | DESC_INNER_SH | DESC_PXN);
	map_gib(table, PAYLOAD_IPA, DESC_NORMAL | DESC_INNER_SH);
}
