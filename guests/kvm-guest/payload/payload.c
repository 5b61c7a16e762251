// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs bare in the guest and does nothing of its own accord: it reports that it
 * is parked, and when the VMM lets it go on it does what its mailbox says. Each
 * touch is one load or one store, written in assembly so that the compiler can
 * neither add nor drop one.
 */
#include "layout.h"

void payload_main(struct mailbox *mailbox);

static inline uint64_t load(uint64_t address)
{
	uint64_t value;

	asm volatile("ldr %0, [%1]" : "=r"(value) : "r"(address) : "memory");
	return value;
}

static inline void store(uint64_t address, uint64_t value)
{
	asm volatile("str %0, [%1]" : : "r"(value), "r"(address) : "memory");
}

static void report_parked(void)
{
	/* All that was done before must be seen before the report is. */
	asm volatile("dsb sy" : : : "memory");
	store(REPORT_IPA, REPORT_PARKED);
}

/* The order of its steps holds for the compiler and, where it matters, for the CPU. */
static void touch(struct mailbox *mailbox, uint32_t page, int write)
{
	uint64_t address = SLOT_IPA + ((uint64_t)page << GUEST_PAGE_SHIFT);

	mailbox->page = page;
	if (write) {
		store(address, mailbox->value + page);
	} else {
		mailbox->last = load(address);
		mailbox->check ^= mailbox->last;
	}
	/* Whoever reads the count may rely on that touch. */
	asm volatile("dmb ish" : : : "memory");
	__atomic_store_n(&mailbox->touches, mailbox->touches + 1, __ATOMIC_RELAXED);
}

static void touch_list(struct mailbox *mailbox, int write)
{
	const uint32_t *list = (const uint32_t *)mailbox->list;

	for (uint64_t i = 0; i < mailbox->count; i++)
		touch(mailbox, list[i], write);
}

static int told_to_stop(const struct mailbox *mailbox)
{
	return __atomic_load_n(&mailbox->stop, __ATOMIC_ACQUIRE) != 0;
}

static void spin(struct mailbox *mailbox, int write)
{
	const uint32_t *list = (const uint32_t *)mailbox->list;

	for (uint64_t i = 0; !told_to_stop(mailbox); i = i + 1 == mailbox->count ? 0 : i + 1)
		touch(mailbox, list[i], write);
}

void payload_main(struct mailbox *mailbox)
{
	for (;;) {
		report_parked();
		switch (mailbox->command) {
		case MAILBOX_READ:
			touch_list(mailbox, 0);
			break;
		case MAILBOX_WRITE:
			touch_list(mailbox, 1);
			break;
		case MAILBOX_SPIN_READ:
			spin(mailbox, 0);
			break;
		case MAILBOX_SPIN_WRITE:
			spin(mailbox, 1);
			break;
		}
	}
}
