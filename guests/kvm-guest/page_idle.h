/* SPDX-License-Identifier: GPL-2.0-only */
/* See Documentation/admin-guide/mm/idle_page_tracking.rst. */
#ifndef PAGE_IDLE_H
#define PAGE_IDLE_H

#define PAGE_IDLE_BITMAP "/sys/kernel/mm/page_idle/bitmap"
/* Of the bitmap: what one read or write moves at least, and the PFNs in it. */
#define WORD_BITS 64

#endif
