// SPDX-License-Identifier: GPL-2.0-only
#include "stage1.h"

#include "layout.h"

#define DESC_BLOCK	1UL
#define DESC_PAGE	3UL
#define DESC_DEVICE	(0UL << 2)
#define DESC_NORMAL	(1UL << 2)
#define DESC_INNER_SH	(3UL << 8)
#define DESC_DBM	(1UL << 51)
#define DESC_PXN	(1UL << 53)
#define DESC_UXN	(1UL << 54)

#define GIB (1UL << GIB_SHIFT)

static void map_gib(uint64_t *table, uint64_t address, uint64_t ipa, uint64_t attributes)
{
	/* AF is set, so that nobody has to set it. */
	table[address / GIB] = (ipa & -GIB) | DESC_BLOCK | STAGE1_AF | DESC_UXN | attributes;
}

uint64_t stage1_block(uint64_t ipa)
{
	return ipa | DESC_BLOCK | STAGE1_AF | DESC_UXN | DESC_PXN | DESC_NORMAL | DESC_INNER_SH;
}

uint64_t stage1_unused_page(uint64_t ipa)
{
	return ipa | DESC_PAGE | DESC_DBM | STAGE1_READ_ONLY | DESC_UXN | DESC_PXN | DESC_NORMAL |
	       DESC_INNER_SH;
}

void stage1_set_table(uint64_t *table, uint64_t address, uint64_t ipa)
{
	table[address / GIB] = ipa | STAGE1_TABLE;
}

void stage1_map_report(uint64_t *table)
{
	map_gib(table, REPORT_IPA, REPORT_IPA, DESC_DEVICE | DESC_PXN);
}

void stage1_map(uint64_t *table, uint64_t address, uint64_t ipa, uint64_t size, bool code)
{
	uint64_t attributes = DESC_NORMAL | DESC_INNER_SH | (code ? 0 : DESC_PXN);

	for (uint64_t at = address & -GIB; at < address + size; at += GIB)
		map_gib(table, at, ipa + (at - (address & -GIB)), attributes);
}
