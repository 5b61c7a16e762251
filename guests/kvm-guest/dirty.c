// SPDX-License-Identifier: GPL-2.0-only
/* The dirty log of the tested slot, dirty rings, and the TLB invalidation that a log can force. */
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "ranges.h"
#include "reply.h"

#define WORD_BITS 64

/*
 * When dirty logging is turned on, KVM takes the write permission from the
 * slot's stage-2 entries and invalidates their cached translations. It does so
 * without asking a vCPU to leave the guest, and leaves the access flags alone.
 */
int command_flush(struct vm *vm, char **words)
{
	(void)words;
	if (vm->dirty_log)
		return reply_error("usage", "flush would lose the dirty log that is on");
	if (vm->manual_log == MANUAL_LOG_SET)
		return reply_error("usage",
				   "a dirty log that has all pages at first invalidates nothing");
	if (vm_log_and_stop(vm))
		return reply_errno("KVM_SET_USER_MEMORY_REGION");
	reply_ok("%s", "");
	return 0;
}

int command_dirty_log(struct vm *vm, char **words)
{
	bool on = !strcmp(words[0], "on");

	if (!on && strcmp(words[0], "off"))
		return reply_error("usage", "expected: dirty-log on|off");
	if (vm_set_dirty_log(vm, on))
		return reply_errno("KVM_SET_USER_MEMORY_REGION");
	vm->dirty_log = on;
	reply_ok("%s", "");
	return 0;
}

int command_dirty(struct vm *vm, char **words)
{
	size_t bitmap_words = (vm->pages + WORD_BITS - 1) / WORD_BITS;
	uint64_t *bitmap = calloc(bitmap_words, sizeof(*bitmap));
	bool *dirty = calloc(vm->pages, sizeof(*dirty));
	uint32_t count = 0;
	int result = -1;

	(void)words;
	if (!bitmap || !dirty)
		die("out of memory");
	if (!vm->dirty_log) {
		reply_error("usage", "the dirty log is off");
	} else if (vm_get_dirty_log(vm, bitmap)) {
		reply_errno("KVM_GET_DIRTY_LOG");
	} else {
		for (uint32_t page = 0; page < vm->pages; page++) {
			dirty[page] = bitmap[page / WORD_BITS] >> page % WORD_BITS & 1;
			count += dirty[page];
		}
		reply_ok(" count=%u dirty=", count);
		ranges_print(reply, dirty, vm->pages);
		result = 0;
	}
	free(bitmap);
	free(dirty);
	return result;
}

int command_clear_log(struct vm *vm, char **words)
{
	size_t bitmap_words = (vm->pages + WORD_BITS - 1) / WORD_BITS;
	uint64_t *bitmap = calloc(bitmap_words, sizeof(*bitmap));
	uint32_t *list = calloc(vm->pages, sizeof(*list));
	uint32_t count, low = vm->pages, high = 0;
	int result = -1;

	if (!bitmap || !list)
		die("out of memory");
	if (!vm->dirty_log || !vm->manual_log) {
		reply_error("usage", "there is no dirty log that is cleared by hand");
	} else if (!parse_pages(vm, words[0], list, &count)) {
		for (uint32_t i = 0; i < count; i++) {
			bitmap[list[i] / WORD_BITS] |= 1UL << list[i] % WORD_BITS;
			low = list[i] < low ? list[i] : low;
			high = list[i] > high ? list[i] : high;
		}
		/* Whole words, but at the slot's end. */
		low = low / WORD_BITS * WORD_BITS;
		high = (high / WORD_BITS + 1) * WORD_BITS;
		high = high < vm->pages ? high : vm->pages;
		if (!count) {
			reply_error("usage", "no page to clear");
		} else if (vm_clear_dirty_log(vm, bitmap + low / WORD_BITS, low, high - low)) {
			reply_errno("KVM_CLEAR_DIRTY_LOG");
		} else {
			reply_ok(" pages=%u", count);
			result = 0;
		}
	}
	free(bitmap);
	free(list);
	return result;
}

int command_harvest(struct vm *vm, char **words)
{
	bool *dirty = calloc(vm->pages, sizeof(*dirty));
	struct ring since;
	struct vcpu *vcpu;
	uint32_t most, count = 0;
	int result = -1;

	if (!dirty)
		die("out of memory");
	if (!vm->ring) {
		reply_error("usage", "there are no dirty rings");
	} else if (!parse_vcpu(vm, words[0], &vcpu) &&
		   !parse_number(words[1], RING_MAX + 1, "ENTRIES", &most)) {
		ring_harvest(vcpu, most);
		ring_forget(vcpu, &since, dirty);
		for (uint32_t page = 0; page < vm->pages; page++)
			count += dirty[page];
		reply_ok(" vcpu=%u entries=%u others=%u strange=%u full=%u entered=%u count=%u dirty=",
			 vcpu->id, since.taken, since.others, since.strange, since.full,
			 since.entered, count);
		ranges_print(reply, dirty, vm->pages);
		result = 0;
	}
	free(dirty);
	return result;
}

int command_reset_rings(struct vm *vm, char **words)
{
	uint64_t harvested, resets;

	(void)words;
	if (!vm->ring)
		return reply_error("usage", "there are no dirty rings");
	if (ring_reset(vm, &harvested, &resets))
		return reply_errno("KVM_RESET_DIRTY_RINGS");
	reply_ok(" harvested=%" PRIu64 " reset=%" PRIu64, harvested, resets);
	return 0;
}
