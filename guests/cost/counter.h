/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Instructions that the kernel retired for this process, by the CPU's PMU.
 *
 * User space is excluded, and so are guests. EL2 is not: the host's kernel runs there under VHE,
 * and what nVHE and pKVM run there is the same code of KVM in another place, so a series may make
 * it longer as well. Interrupts that come while this process runs count; kernel threads do not.
 */
#ifndef COUNTER_H
#define COUNTER_H

#include <stdint.h>

/* Fatal where there is no such counter. */
int counter_open(void);

uint64_t counter_read(int fd);

#endif
