/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The guest's own translation (stage 1), in blocks of 1 GiB, so that loads and
 * stores are cacheable as they are in any real guest. Addresses map to themselves,
 * but with --far, where memory lies beyond the 39 bits that they have, and where layout.h
 * says otherwise. See the Arm Architecture Reference Manual (DDI 0487), D8 and D24.
 */
#ifndef STAGE1_H
#define STAGE1_H

#include <stdbool.h>
#include <stdint.h>

/* Attribute 0 is Device-nGnRE, attribute 1 Normal write-back memory. */
#define STAGE1_MAIR 0xff04UL

/*
 * TTBR0 covers 39 bits (T0SZ 25) in 4 KiB granules, walks are write-back and
 * inner shareable, IPS is 48 bits, or what the CPU has where that is less; TTBR1 is
 * off (EPD1), with a granule of 4 KiB.
 */
#define STAGE1_TCR (25UL | 1UL << 8 | 1UL << 10 | 3UL << 12 | 1UL << 23 | 2UL << 30 | 5UL << 32)

/* The bits that are RES1 without later extensions, and M, C, SA and I. */
#define STAGE1_SCTLR (0x30d00800UL | 1UL << 0 | 1UL << 2 | 1UL << 3 | 1UL << 12)

/* What TCR_EL1 has besides for a CPU that is to set AF, and to make entries writable, itself. */
#define STAGE1_TCR_HA (1UL << 39)
#define STAGE1_TCR_HD (1UL << 40)

/* Type of an entry that leads to a table. */
#define STAGE1_TABLE 3UL

/* Bits of an entry that such a CPU changes: it sets the first, and clears the second. */
#define STAGE1_AF		(1UL << 10)
#define STAGE1_READ_ONLY	(1UL << 7)

/* An entry of level 2 that maps 2 MiB at @ipa as Normal memory, for loads and stores. */
uint64_t stage1_block(uint64_t ipa);

/*
 * An entry of level 3 that maps a page likewise, but without AF, and for loads alone until the
 * first store, with which DBM lets a CPU make it writable: one that nobody has used yet, as a
 * kernel makes it that leaves both to the CPU.
 */
uint64_t stage1_unused_page(uint64_t ipa);

/* Has the GiB at @address translated by a table of level 2. */
void stage1_set_table(uint64_t *table, uint64_t address, uint64_t ipa);

/* Maps REPORT_IPA as Device memory. */
void stage1_map_report(uint64_t *table);

/*
 * Maps @size bytes from @address on as Normal memory at @ipa, and whatever else lies in the
 * same GiBs. Both have the same offset in a GiB. Only what is for @code can be executed.
 */
void stage1_map(uint64_t *table, uint64_t address, uint64_t ipa, uint64_t size, bool code);

#endif
