/* SPDX-License-Identifier: GPL-2.0-only */
/* On which NUMA node the memory of guests lies. */
#ifndef NUMA_H
#define NUMA_H

/*
 * Has what the calling thread and those that it starts take from now on come from
 * the node that it runs on, while that has any: MGLRU keeps generations for each
 * node, and is asked about one. A kernel without NUMA does not know of this, and
 * whether memory lies on one node is seen where that matters.
 */
void numa_stay(void);

#endif
