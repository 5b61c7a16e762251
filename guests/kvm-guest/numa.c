// SPDX-License-Identifier: GPL-2.0-only
#include "numa.h"

#include <limits.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

/* More nodes than arm64 can be configured for (CONFIG_NODES_SHIFT, at most 10). */
#define MAX_NODES 1024
#define WORD_BITS (sizeof(unsigned long) * CHAR_BIT)

void numa_stay(void)
{
	unsigned long nodes[MAX_NODES / WORD_BITS] = { 0 };
	unsigned int cpu, node;

	if (syscall(SYS_getcpu, &cpu, &node, NULL) || node >= MAX_NODES)
		return;
	nodes[node / WORD_BITS] = 1UL << node % WORD_BITS;
	/* The kernel takes one bit less than it is told there are. */
	syscall(SYS_set_mempolicy, MPOL_PREFERRED, nodes, MAX_NODES + 1);
}
