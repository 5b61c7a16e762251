/* SPDX-License-Identifier: GPL-2.0-only */
/* A userfaultfd(2) over a range of memory. */
#ifndef UFFD_H
#define UFFD_H

#include <linux/userfaultfd.h>
#include <stdint.h>

#include "vm.h"

/*
 * An fd that has the features @needed, with @others, and @all registered; or -1 with
 * the error as the reply: @absent where this kernel has not what is needed.
 */
int uffd_open(uint64_t needed, uint64_t others, struct uffdio_register *all, const char *absent);

/* The same with all tested pages registered, to be protected against writes. */
int uffd_open_slot(const struct vm *vm, uint64_t needed, uint64_t others, const char *absent);

#endif
