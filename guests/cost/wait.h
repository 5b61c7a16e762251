/* SPDX-License-Identifier: GPL-2.0-only */
/* Waiting for threads of the kernel. The time is the machine's own: nobody else has to wait. */
#ifndef WAIT_H
#define WAIT_H

/* Sleeps a millisecond; fatal if it has come to that too often, which @waited counts. */
void wait_a_ms(int *waited, const char *what);

#endif
