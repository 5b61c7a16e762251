// SPDX-License-Identifier: GPL-2.0-only
/*
 * Another VM that has the tested pages too comes and goes. Whoever ages a page
 * asks every VM of the process for it, and so comes to one that is being torn down.
 */
#include "race.h"
#include "second.h"

int oppose_by_vm(struct race *race, uint32_t first, uint32_t count)
{
	struct vm other;
	int result;

	(void)first;
	(void)count;
	vm_create_second(&other, race->vm, 1);
	result = second_reads_all(&other);
	vm_close_vcpus(&other);
	/* The last that holds it. */
	race_begin(race, RACE_ACT, 0, race->vm->pages);
	vm_close(&other);
	race_end(race, 0, race->vm->pages);
	race->counts.vms++;
	return result;
}
