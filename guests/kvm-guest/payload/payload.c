// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs bare in the guest and does nothing of its own accord: it reports that it
 * is parked, and when the VMM lets it go on it does what its mailbox says. Each
 * touch is one load, one store, one jump into the page or one walk through it, in which
 * the CPU may have to change it; loads and stores are in assembly so that the compiler can
 * neither add nor drop one, and none is done before it is known that it must be.
 */
#include "judge.h"
#include "layout.h"
#include "stage1.h"

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

/* The instruction there is a return. */
static inline void fetch(uint64_t address)
{
	((void (*)(void))address)();
}

/* From here on the tested page is a table: nobody but the CPU's own walk reads it. */
static void lead_through(uint64_t entry, uint64_t table_ipa)
{
	store(entry, table_ipa | STAGE1_TABLE);
	asm volatile("dsb ishst; isb" : : : "memory");
}

/* And from here on it is none: nothing that is cached of it outlasts that. */
static void lead_nowhere(uint64_t entry)
{
	store(entry, 0);
	asm volatile("dsb ishst; tlbi vmalle1is; dsb ish; isb" : : : "memory");
}

/* Loads through a table. Returns 0 if the load led where it must. */
static uint64_t walk(uint64_t address, uint64_t table_ipa)
{
	uint64_t entry = PAYLOAD_IPA + STAGE1_OFFSET + (address >> GIB_SHIFT) * sizeof(uint64_t);
	uint64_t wrong;

	lead_through(entry, table_ipa);
	wrong = load(address + PLANTED_GIB_OFFSET) ^ load(PAYLOAD_IPA);
	lead_nowhere(entry);
	return wrong;
}

/* A TLB may hold its bits with what is cached of tables. */
static void set_tcr(uint64_t tcr)
{
	asm volatile("msr tcr_el1, %0; isb; tlbi vmalle1; dsb nsh; isb" : : "r"(tcr) : "memory");
}

/*
 * The same by an entry that nobody has used: the CPU has to set AF in it, by HA in @tcr, and to
 * make it writable, by HD, if it is a store that leads through it.
 */
static uint64_t update(uint64_t address, uint64_t table_ipa, uint64_t tcr, bool write)
{
	uint64_t entry = PAYLOAD_IPA + UPDATE_TABLE_OFFSET +
			 ((address - UPDATE_ADDRESS) >> UPDATE_SHIFT) * sizeof(uint64_t);
	uint64_t scratch = PAYLOAD_IPA + SCRATCH_OFFSET, value = load(scratch), wrong = 0;

	address += UNUSED_PAGE_OFFSET + SCRATCH_OFFSET % GUEST_PAGE_SIZE;
	set_tcr(STAGE1_TCR | tcr);
	lead_through(entry, table_ipa);
	if (write) {
		value = ~value;
		store(address, value);
	} else {
		wrong = load(address) ^ value;
	}
	lead_nowhere(entry);
	set_tcr(STAGE1_TCR);
	return wrong | (load(scratch) ^ value);
}

static void report_parked(void)
{
	/* All that was done before must be seen before the report is. */
	asm volatile("dsb sy" : : : "memory");
	store(REPORT_IPA, REPORT_PARKED);
}

/*
 * What follows is not even tried before all that stands before has happened, the branch that led
 * here among it. A CPU that sets AF by itself may do so for an access that it makes by guess (Arm
 * ARM, "Hardware management of the Access flag"), and at the end of a list it would guess one
 * more, of whatever page stands there. Nothing after a DSB does any part of its work but to be
 * fetched and decoded until that completes, which it does not before the load of what the branch
 * goes by (Arm ARM, "Data Synchronization Barrier"); and what follows an ISB is fetched anew when
 * that has completed. SB would do the same, but CPUs with FEAT_HAFDBS need not have it; the kernel
 * has these two in its place (spec_bar() of arch/arm64/include/asm/barrier.h). CSDB would do for a
 * page that is chosen by CSEL, not for a branch.
 */
static inline void only_if_it_must(void)
{
	asm volatile("dsb sy; isb" : : : "memory");
}

/* The order of its steps holds for the compiler and, where it matters, for the CPU. */
static void touch(struct mailbox *mailbox, uint32_t page, enum mailbox_command how)
{
	uint64_t offset = (uint64_t)page << GUEST_PAGE_SHIFT;
	uint64_t address = mailbox->slot + offset;

	mailbox->page = page;
	if (how == MAILBOX_WRITE) {
		store(address, mailbox->value + page);
	} else if (how == MAILBOX_FETCH) {
		fetch(address + FETCH_OFFSET + PLANTED_CODE_OFFSET);
	} else if (how == MAILBOX_WALK) {
		mailbox->check |= walk(mailbox->walk, mailbox->slot_ipa + offset);
	} else if (how == MAILBOX_SET_AF) {
		mailbox->check |= update(mailbox->update, mailbox->slot_ipa + offset,
					 STAGE1_TCR_HA, false);
	} else if (how == MAILBOX_SET_DIRTY) {
		mailbox->check |= update(mailbox->update, mailbox->slot_ipa + offset,
					 STAGE1_TCR_HA | STAGE1_TCR_HD, true);
	} else {
		mailbox->last = load(address);
		mailbox->check = check_add(mailbox->check, mailbox->last);
	}
	/* Whoever reads the count may rely on that touch. */
	asm volatile("dmb ish" : : : "memory");
	__atomic_store_n(&mailbox->touches, mailbox->touches + 1, __ATOMIC_RELAXED);
}

static uint64_t counter(void)
{
	uint64_t now;

	asm volatile("isb; mrs %0, cntvct_el0" : "=r"(now) : : "memory");
	return now;
}

static uint64_t ticks_of(uint64_t microseconds)
{
	uint64_t frequency;

	asm volatile("mrs %0, cntfrq_el0" : "=r"(frequency));
	return microseconds * frequency / 1000000;
}

/* In the guest, and with its list mapped: when it is let go nothing comes before its touch. */
static void wait_if_held(struct mailbox *mailbox, const uint32_t *list)
{
	uint64_t begin;

	if (!mailbox->held)
		return;
	mailbox->page = *list;
	__atomic_store_n(&mailbox->waits, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&mailbox->held, __ATOMIC_ACQUIRE))
		;
	begin = counter();
	while (counter() - begin < ticks_of(mailbox->pause))
		;
}

static void touch_list(struct mailbox *mailbox, enum mailbox_command how)
{
	const uint32_t *list = (const uint32_t *)mailbox->list;

	wait_if_held(mailbox, list);
	for (uint64_t i = 0; i < mailbox->count; i++) {
		only_if_it_must();
		touch(mailbox, list[i], how);
	}
}

static int told_to_stop(const struct mailbox *mailbox)
{
	return __atomic_load_n(&mailbox->stop, __ATOMIC_ACQUIRE) != 0;
}

static void spin(struct mailbox *mailbox, enum mailbox_command how)
{
	const uint32_t *list = (const uint32_t *)mailbox->list;

	for (uint64_t i = 0; !told_to_stop(mailbox); i = i + 1 == mailbox->count ? 0 : i + 1) {
		only_if_it_must();
		touch(mailbox, list[i], how);
	}
}

static uint64_t next_random(struct mailbox *mailbox)
{
	uint64_t x = mailbox->seed;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	mailbox->seed = x;
	return x;
}

static uint32_t load_count(const uint32_t *count)
{
	return __atomic_load_n(count, __ATOMIC_ACQUIRE);
}

static struct drops *drops_of(const struct mailbox *mailbox, uint32_t page)
{
	return (struct drops *)mailbox->drops + page;
}

static struct record *record_of(const struct mailbox *mailbox, uint32_t page)
{
	return (struct record *)mailbox->records + page;
}

static uint64_t word_of(const struct mailbox *mailbox, uint32_t page)
{
	return mailbox->slot + ((uint64_t)page << GUEST_PAGE_SHIFT) + mailbox->word;
}

/* Whoever sees an access happen also sees that it was begun. */
static void begin(struct accesses *accesses)
{
	__atomic_store_n(&accesses->begun, accesses->begun + 1, __ATOMIC_RELAXED);
	asm volatile("dmb ish" : : : "memory");
}

/* Whoever sees that an access has ended also sees what it did. */
static void end(struct accesses *accesses)
{
	asm volatile("dmb ish" : : : "memory");
	__atomic_store_n(&accesses->ended, accesses->ended + 1, __ATOMIC_RELAXED);
}

static void race_read(struct mailbox *mailbox, uint32_t page)
{
	struct drops *drops = drops_of(mailbox, page);
	struct record *record = record_of(mailbox, page);
	uint32_t done = load_count(&drops->done);
	uint64_t got;

	begin(&mailbox->reads);
	got = load(word_of(mailbox, page));
	end(&mailbox->reads);
	mailbox->got = got;
	mailbox->fault = race_judge(record, done, load_count(&drops->begun), got);
	if (!mailbox->fault && got != record->value) {
		record->value = 0;
		mailbox->dropped++;
	}
}

static void race_write(struct mailbox *mailbox, uint32_t page)
{
	struct drops *drops = drops_of(mailbox, page);
	struct record *record = record_of(mailbox, page);

	record->done = load_count(&drops->done);
	record->value = (mailbox->value + mailbox->touches + 1) << 32 | page << 8 | mailbox->word;
	begin(&mailbox->writes);
	store(word_of(mailbox, page), record->value);
	end(&mailbox->writes);
	record->begun = load_count(&drops->begun);
}

static void count_touch(struct mailbox *mailbox)
{
	__atomic_store_n(&mailbox->touches, mailbox->touches + 1, __ATOMIC_RELEASE);
}

static void race(struct mailbox *mailbox)
{
	while (!told_to_stop(mailbox) && !mailbox->fault) {
		uint64_t random = next_random(mailbox);
		uint32_t page = (random >> 8) % mailbox->count;

		mailbox->page = page;
		race_read(mailbox, page);
		if (!mailbox->fault && random & 1)
			race_write(mailbox, page);
		count_touch(mailbox);
	}
}

static void race_check(struct mailbox *mailbox)
{
	for (uint64_t page = 0; page < mailbox->count && !mailbox->fault; page++) {
		if (told_to_stop(mailbox))
			return;
		mailbox->page = page;
		race_read(mailbox, page);
		count_touch(mailbox);
	}
}

void payload_main(struct mailbox *mailbox)
{
	for (;;) {
		report_parked();
		switch (mailbox->command) {
		case MAILBOX_READ:
		case MAILBOX_WRITE:
		case MAILBOX_FETCH:
		case MAILBOX_WALK:
		case MAILBOX_SET_AF:
		case MAILBOX_SET_DIRTY:
			touch_list(mailbox, mailbox->command);
			break;
		case MAILBOX_SPIN_READ:
			spin(mailbox, MAILBOX_READ);
			break;
		case MAILBOX_SPIN_WRITE:
			spin(mailbox, MAILBOX_WRITE);
			break;
		case MAILBOX_RACE:
			race(mailbox);
			break;
		case MAILBOX_RACE_CHECK:
			race_check(mailbox);
			break;
		}
	}
}
