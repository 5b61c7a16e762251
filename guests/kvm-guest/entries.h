/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Entries of the guest's own tables that its CPU changes by itself: those that "plant" puts
 * into tested pages at UNUSED_ENTRY_OFFSET. Seen as a VMM sees them, in its own mapping.
 */
#ifndef ENTRIES_H
#define ENTRIES_H

#include "vm.h"

/* The word of a page where that entry is, if it is planted. */
uint64_t entry_of(const struct vm *vm, uint32_t page);

#endif
