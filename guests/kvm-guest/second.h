/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef SECOND_H
#define SECOND_H

#include "vm.h"

/*
 * Has the vCPU of a VM of vm_create_second() read each of the tested pages, in
 * this thread. Returns 0, or -1 with an error as the reply.
 */
int second_reads_all(struct vm *second);

#endif
