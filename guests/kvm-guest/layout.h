/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the VMM and the payload agree on: where things lie in the guest's
 * physical memory, and the mailbox of each vCPU.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#define GUEST_PAGE_SHIFT	12
#define GUEST_PAGE_SIZE		0x1000
#define GIB_SHIFT		30

/* No memslot covers it: a store there ends KVM_RUN with KVM_EXIT_MMIO. */
#define REPORT_IPA		0x10000000

/*
 * The tested pages, and nothing else. Aligned for blocks of 1 GiB, unless they are skewed.
 * With --far they lie half below and half above the middle of all guest addresses (see vm.c).
 */
#define SLOT_IPA		0x80000000

/* Where they are while they are somewhere else; no vCPU ever goes there. */
#define OTHER_SLOT_IPA		0x200000000

/* Where a second memslot has them too. */
#define SECOND_SLOT_IPA		0x300000000

/*
 * Code, stage-1 tables, mailboxes and page lists. Above the tested slot, since
 * a stage-2 dump of Linux 6.12 never prints its last range. The guest's code runs
 * at PAYLOAD_IPA in any case, wherever its memory is.
 */
#define PAYLOAD_IPA		0x400000000

/*
 * Addresses of the guest where it has no memory otherwise: as much higher as this the tested
 * pages stand once more, there with leave to execute; and from WALK_ADDRESS on each vCPU has
 * a GiB of its own whose table is the tested page that it is told to walk through; and from
 * UPDATE_ADDRESS on 2 MiB of its own, whose table is likewise.
 */
#define FETCH_OFFSET		0x4000000000
#define WALK_ADDRESS		0x7000000000
#define UPDATE_ADDRESS		0x7800000000
#define UPDATE_SHIFT		21

/*
 * What "plant" writes into a tested page, at these offsets: an instruction; the entry for a
 * table of level 2, which maps the payload; and one that nobody has used yet for a table of
 * level 3, which maps the page of SCRATCH_OFFSET. It is of level 3 since QEMU 7.2, where the
 * update of an entry faults at stage 2, tells the level of that entry for that of stage 2's.
 */
#define PLANTED_CODE_OFFSET	0x800
#define PLANTED_ENTRY_OFFSET	0xc00
#define PLANTED_GIB_OFFSET	((PLANTED_ENTRY_OFFSET / 8) << 21)
#define UNUSED_ENTRY_OFFSET	0xc40
#define UNUSED_PAGE_OFFSET	((UNUSED_ENTRY_OFFSET / 8) << GUEST_PAGE_SHIFT)

/* Offsets in the payload's slot. The parts of each vCPU follow. */
#define CODE_PAGES		4
#define STAGE1_OFFSET		(CODE_PAGES * GUEST_PAGE_SIZE)
#define UPDATE_TABLE_OFFSET	(STAGE1_OFFSET + GUEST_PAGE_SIZE)
#define VCPUS_OFFSET		(UPDATE_TABLE_OFFSET + GUEST_PAGE_SIZE)

/* A word behind the code, for stores that only have to go somewhere. */
#define SCRATCH_OFFSET		(STAGE1_OFFSET - 8)

/*
 * A vCPU's part: its mailbox, its stack, its list of pages, then its records.
 * Behind the parts of all vCPUs stand the drops of each page. Behind the last page of a list
 * that page follows LIST_TAIL times more: a CPU that reads on by guess finds no other there.
 */
#define STACK_TOP_OFFSET	(2 * GUEST_PAGE_SIZE)
#define LIST_OFFSET		(2 * GUEST_PAGE_SIZE)
#define LIST_TAIL		64

/* Offsets in the mailbox that entry.S uses. */
#define MAILBOX_ESR		0
#define MAILBOX_ELR		8
#define MAILBOX_FAR		16

/* Values stored to REPORT_IPA. */
#define REPORT_PARKED		1
#define REPORT_EXCEPTION	2

#ifndef __ASSEMBLER__
#include <stdint.h>

enum mailbox_command {
	MAILBOX_READ = 1,
	MAILBOX_WRITE,
	MAILBOX_FETCH,
	MAILBOX_WALK,
	MAILBOX_SET_AF,
	MAILBOX_SET_DIRTY,
	MAILBOX_SPIN_READ,
	MAILBOX_SPIN_WRITE,
	MAILBOX_RACE,
	MAILBOX_RACE_CHECK,
};

/* How often the host began, and ended, to drop a page's content. Written by the VMM. */
struct drops {
	uint32_t begun;
	uint32_t done;
};

/* What a vCPU knows of its own word in a page, at the offset of mailbox.word. */
struct record {
	uint64_t value;		/* what it holds unless it was dropped */
	uint32_t done;		/* drops that had ended before it was written */
	uint32_t begun;		/* drops that had begun when it was written */
};

enum race_fault {
	RACE_NONE,
	RACE_STALE,		/* seen although a drop began and ended since it was written */
	RACE_LOST,		/* zero, although no drop can have hit it */
	RACE_WRONG,		/* neither what was written nor zero */
};

/* How many accesses a vCPU has begun, and ended, since the race began. */
struct accesses {
	uint64_t begun;
	uint64_t ended;
};

struct mailbox {
	/* Written by the payload when it took an exception. */
	uint64_t esr;
	uint64_t elr;
	uint64_t far;

	/* Written by the VMM while the vCPU is parked. */
	uint64_t command;
	uint64_t list;		/* address of uint32_t page indices */
	uint64_t count;
	uint64_t value;		/* a write stores this plus the page's index; of a race: see there */
	uint64_t slot;		/* address of the tested pages */
	uint64_t slot_ipa;	/* where that address leads */
	uint64_t walk;		/* address that this vCPU has for walks */
	uint64_t update;	/* the same for those in which the CPU changes the table */

	/* Written by the VMM at any time: ends a spin. */
	uint64_t stop;

	/* Likewise: unless it is 0, touches of a list do not begin. */
	uint64_t held;
	uint64_t pause;		/* microseconds from then to the first; written while it is parked */
	uint64_t waits;		/* the payload sets it when it waits */

	/* Written by the payload, read by the VMM at any time. */
	uint64_t touches;
	uint64_t page;		/* the page that it is at */
	uint64_t check;		/* sum of all values read (judge.h), where the pages hold them */
	uint64_t last;		/* the value read last */

	/*
	 * Of a race; written by the VMM while the vCPU is parked. There `value` is how
	 * many touches it made before, so that no value is written twice.
	 */
	uint64_t records;	/* address of a struct record for each page */
	uint64_t drops;		/* address of a struct drops for each page */
	uint64_t word;		/* offset in a page that only this vCPU writes to */
	uint64_t seed;		/* not 0 */

	/* Written by the payload. */
	struct accesses reads;	/* read by the VMM at any time, as are the writes */
	struct accesses writes;
	uint64_t dropped;	/* words that it found zero after a drop */
	uint64_t fault;		/* enum race_fault; it parks at the first one */
	uint64_t got;		/* what it read then */
};

_Static_assert(__builtin_offsetof(struct mailbox, esr) == MAILBOX_ESR, "entry.S");
_Static_assert(__builtin_offsetof(struct mailbox, elr) == MAILBOX_ELR, "entry.S");
_Static_assert(__builtin_offsetof(struct mailbox, far) == MAILBOX_FAR, "entry.S");
#endif

#endif
