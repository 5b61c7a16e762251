/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * DAMON, with a region for each tested page of this process, so that it takes a sample in each.
 *
 * The interval between samples is one that nobody waits for: to switch DAMON off ends it, and
 * DAMON looks at its samples before it goes. See Documentation/admin-guide/mm/damon/usage.rst.
 */
#ifndef DAMON_H
#define DAMON_H

#include <stdbool.h>
#include <stdint.h>

/* Whether the kernel has it. */
bool damon_exists(void);

/* Tells DAMON of the tested pages, from @first on; it is off. */
void damon_prepare(const void *first, uint32_t pages);

/* Starts its thread, and returns when that has aged a page in each region and sleeps. */
void damon_on(void);

/* Has it ask for each of these pages whether it was accessed since. Its thread ends. */
void damon_off(void);

/* As if it had never been told of anything. */
void damon_remove(void);

#endif
