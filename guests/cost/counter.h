/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Instructions that the kernel retired for a process or a kernel thread, by the CPU's PMU.
 *
 * User space is excluded, and so are guests. EL2 is not: the host's kernel runs there under VHE,
 * and what nVHE and pKVM run there is the same code of KVM in another place, so a series may make
 * it longer as well. Interrupts that come while it runs count; what others do for it does not.
 */
#ifndef COUNTER_H
#define COUNTER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Of this process; fatal where there is no such counter, as are the others. */
int counter_open(void);

/* Of another, or of a kernel thread. */
int counter_open_thread(pid_t pid);

/* Of one, and of all that it starts from now on, until the counter is closed. */
int counter_open_descendants(pid_t pid);

uint64_t counter_read(int fd);

#endif
