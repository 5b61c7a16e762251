/* SPDX-License-Identifier: GPL-2.0-only */
/* As measure.h, for drivers of aging that are threads of the kernel; nothing without them. */
#ifndef THREADS_H
#define THREADS_H

#include <stdint.h>

/* DAMON, which ages a guest's pages, and asks whether they were accessed since. */
void measure_damon(uint32_t pages);

/* khugepaged, which asks whether a guest's pages are young. */
void measure_khugepaged(uint32_t pages);

/* How often they call the MMU notifiers of aging: processes that measure nothing. */
void count_damon(uint32_t pages);
void count_khugepaged(uint32_t pages);

#endif
