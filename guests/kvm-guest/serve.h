/* SPDX-License-Identifier: GPL-2.0-only */
/* One line in, one line out: see docs/guest-protocol.md. */
#ifndef SERVE_H
#define SERVE_H

#include <stdbool.h>

/*
 * Hands each line of standard input, without its newline, to @run, which
 * composes the reply; returns at the end of input or when @run returns false.
 */
void serve(bool (*run)(void *context, char *line), void *context);

#endif
