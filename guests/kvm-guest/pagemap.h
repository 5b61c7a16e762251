/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which host page backs each tested page, and its flags. See
 * Documentation/admin-guide/mm/pagemap.rst. Reading changes nothing.
 */
#ifndef PAGEMAP_H
#define PAGEMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "vm.h"

#define PFN_NONE UINT64_MAX

/* The PFN of each tested page, PFN_NONE if none is mapped; to be freed. Fatal on failure. */
uint64_t *pagemap_read(const struct vm *vm);

/* The KPF_ flags of a page; fatal on failure. Blocks of them are read at once and kept. */
uint64_t page_flags(uint64_t pfn);
/* Forgets what is kept: the next look is a fresh one. */
void page_flags_refresh(void);

/* The PFN of the compound page's head, which is @pfn itself for a page of its own. */
uint64_t page_head(uint64_t pfn);

#endif
