/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How often KVM's notifiers of aging are called, by ftrace's function profiler. It changes the
 * code of the kernel, so nothing is measured afterwards.
 */
#ifndef CALLS_H
#define CALLS_H

#include <stdint.h>

/* From none on. */
void calls_count(void);

/* No more: a line for each notifier that was called. */
void calls_tell(const char *metric, uint32_t pages);

#endif
