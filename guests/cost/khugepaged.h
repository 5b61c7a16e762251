/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * khugepaged, which asks of each page of a range of 2 MiB whether it is young, from the first on,
 * and gives the range up at a page that is absent. Documentation/admin-guide/mm/transhuge.rst.
 */
#ifndef KHUGEPAGED_H
#define KHUGEPAGED_H

#include <sys/types.h>

/* Its thread, 0 where there is none. */
pid_t khugepaged_thread(void);

/* From now on it looks at nothing, unless it is told to or memory is advised to be huge. */
void khugepaged_stop(void);

/* Has it look once at all memory that may be made huge, and returns when it has. */
void khugepaged_scan(void);

#endif
