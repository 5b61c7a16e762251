/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A process that kills the owner of a VM and has the kernel reap its memory at
 * once, as the OOM killer does, before the owner gets to run and to end.
 */
#ifndef REAPER_H
#define REAPER_H

/* Serves until the end of input, @seconds at most: then SIGALRM ends it. */
_Noreturn void reaper_serve(double seconds);

#endif
