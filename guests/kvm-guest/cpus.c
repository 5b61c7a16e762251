// SPDX-License-Identifier: GPL-2.0-only
#include "cpus.h"

#include <string.h>

unsigned int cpus_of(const cpu_set_t *set, unsigned int *cpus, unsigned int most)
{
	unsigned int all = CPU_COUNT(set), found = 0, passed = 0;

	for (unsigned int cpu = 0; cpu < CPU_SETSIZE && found < most; cpu++) {
		if (!CPU_ISSET(cpu, set))
			continue;
		if (all <= most || passed * most >= found * all)
			cpus[found++] = cpu;
		passed++;
	}
	return found;
}

unsigned int cpus_usable(unsigned int *cpus, unsigned int most)
{
	cpu_set_t before, all;

	if (sched_getaffinity(0, sizeof(before), &before))
		return 0;
	/* Who asks for all is given those that there are. */
	memset(&all, 0xff, sizeof(all));
	if (sched_setaffinity(0, sizeof(all), &all) || sched_getaffinity(0, sizeof(all), &all) ||
	    sched_setaffinity(0, sizeof(before), &before))
		return 0;
	return cpus_of(&all, cpus, most);
}
