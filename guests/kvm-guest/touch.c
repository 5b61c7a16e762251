// SPDX-License-Identifier: GPL-2.0-only
/* Touches of tested pages by the guest, each once, in the order of the list. */
#include <inttypes.h>
#include <string.h>

#include "array_size.h"
#include "commands.h"
#include "judge.h"
#include "reply.h"
#include "touch.h"

static int check_not_spun(const struct vm *vm, const struct vcpu *vcpu, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (vm->write_spins[vcpu->list[i]])
			return reply_error("usage", "page %u is being written by a spin",
					   vcpu->list[i]);
	}
	return 0;
}

static uint64_t value_base(struct vm *vm)
{
	vm->sequence++;
	return (uint64_t)vm->sequence << 32;
}

static void expect_written(struct vm *vm, const struct vcpu *vcpu, uint32_t count, uint64_t base)
{
	for (uint32_t i = 0; i < count; i++) {
		if (!vm->unwritable[vcpu->list[i]])
			vm->expected[vcpu->list[i]] = base + vcpu->list[i];
	}
}

static uint64_t expected_check(const struct vm *vm, const struct vcpu *vcpu, uint32_t count)
{
	uint64_t check = 0;

	for (uint32_t i = 0; i < count; i++)
		check = check_add(check, vm->expected[vcpu->list[i]]);
	return check;
}

int touch_start(struct vm *vm, struct touch *touch)
{
	touch->base = 0;
	touch->check = 0;
	if (touch->how == MAILBOX_WRITE) {
		if (check_not_spun(vm, touch->vcpu, touch->count))
			return -1;
		touch->base = value_base(vm);
	} else if (touch->how == MAILBOX_READ) {
		touch->check = expected_check(vm, touch->vcpu, touch->count);
	}
	vcpu_go(touch->vcpu, touch->how, touch->count, touch->base);
	return 0;
}

int touch_finish(struct vm *vm, const struct touch *touch, double seconds)
{
	bool write = touch->how == MAILBOX_WRITE;
	struct vcpu *vcpu = touch->vcpu;
	int failed = vcpu_wait_parked(vcpu, seconds);

	/* A store to the read-only slot goes nowhere. */
	if (write && !vm->readonly)
		expect_written(vm, vcpu, vcpu_touches(vcpu), touch->base);
	if (failed)
		return -1;
	if (!write && vcpu->mailbox->check != touch->check)
		return reply_error("data", "vcpu=%u the guest did not read what it wrote",
				   vcpu->id);
	return 0;
}

void touch_reply(const struct vcpu *vcpu)
{
	reply_ok(" vcpu=%u pages=%" PRIu64, vcpu->id, vcpu_touches(vcpu));
	vcpu_stats_print_since(&vcpu->stats, vcpu->before);
}

/* Touches the first @count pages of the vCPU's list and composes the reply. */
static int touch(struct vm *vm, struct vcpu *vcpu, enum mailbox_command how, uint32_t count)
{
	struct touch touch = { .vcpu = vcpu, .how = how, .count = count };

	if (touch_start(vm, &touch) || touch_finish(vm, &touch, vm->timeout))
		return -1;
	touch_reply(vcpu);
	return 0;
}

static int parse_how(const char *word, enum mailbox_command *how)
{
	static const struct {
		const char *name;
		enum mailbox_command how;
	} known[] = {
		{ "read", MAILBOX_READ },
		{ "write", MAILBOX_WRITE },
		{ "fetch", MAILBOX_FETCH },
		{ "walk", MAILBOX_WALK },
		{ "set-af", MAILBOX_SET_AF },
		{ "set-dirty", MAILBOX_SET_DIRTY },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		if (!strcmp(word, known[i].name)) {
			*how = known[i].how;
			return 0;
		}
	}
	return reply_error("usage",
			   "the access must be read, write, fetch, walk, set-af or set-dirty");
}

/* A guest that asks its CPU for what it cannot do takes an exception. */
static int check_able(const struct vcpu *vcpu, enum mailbox_command how)
{
	unsigned int needed = how == MAILBOX_SET_DIRTY ? HAFDBS_DIRTY :
			      how == MAILBOX_SET_AF ? HAFDBS_AF : 0;

	if (needed && vcpu_hafdbs(vcpu) < needed)
		return reply_error("usage", "the guest's CPU does not do that (see hafdbs)");
	return 0;
}

int command_touch(struct vm *vm, char **words)
{
	enum mailbox_command how = 0;
	struct vcpu *vcpu;
	uint32_t count;

	if (parse_how(words[0], &how) || parse_task(vm, words + 1, &vcpu, &count) ||
	    check_able(vcpu, how))
		return -1;
	return touch(vm, vcpu, how, count);
}

int command_populate(struct vm *vm, char **words)
{
	struct vcpu *vcpu = &vm->vcpus[0];

	(void)words;
	if (vcpu_check_idle(vcpu))
		return -1;
	for (uint32_t page = 0; page < vm->pages; page++)
		vcpu->list[page] = page;
	return touch(vm, vcpu, MAILBOX_WRITE, vm->pages);
}
