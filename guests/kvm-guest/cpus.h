/* SPDX-License-Identifier: GPL-2.0-only */
/* Which CPUs of the host threads can be bound to. */
#ifndef CPUS_H
#define CPUS_H

#include <sched.h>

/*
 * CPUs of a set, @most of them, the first one and others as far apart as can be: neighbours
 * may share caches that those of another cluster or socket do not. Returns how many.
 */
unsigned int cpus_of(const cpu_set_t *set, unsigned int *cpus, unsigned int most);

/*
 * The same of those that the calling thread can be bound to, isolated ones among them.
 * Their numbers need not follow each other: CPUs may be offline, or not in our
 * cpuset. Returns how many, 0 with errno if the kernel does not say.
 */
unsigned int cpus_usable(unsigned int *cpus, unsigned int most);

#endif
