/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A process that ages pages by page_idle, whoever has them. It shares nothing
 * with them, so that it can go on while their owner ends.
 */
#ifndef IDLE_AGER_H
#define IDLE_AGER_H

/* Serves until the end of input, @seconds at most: then SIGALRM ends it. */
_Noreturn void idle_ager_serve(double seconds);

#endif
