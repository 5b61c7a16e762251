// SPDX-License-Identifier: GPL-2.0-only
/*
 * Touches that begin at the same moment as something else. The vCPU waits for that
 * in the guest, where it needs no scheduler to go on.
 */
#include <string.h>

#include "commands.h"
#include "idle.h"
#include "now.h"
#include "page_idle.h"
#include "reply.h"
#include "touch.h"

#define MAX_PAUSE 1000000

static int parse_pause(const char *word, uint32_t *pause)
{
	return parse_number(word, MAX_PAUSE, "MICROSECONDS", pause);
}

/* --timeout is for all of a command. */
static double left(double until)
{
	double seconds = until - now();

	return seconds > 0 ? seconds : 0;
}

/* Lets a touch go as far as its first access; -1 with an error as the reply. */
static int start_held(struct vm *vm, struct touch *touch, uint32_t pause, double until)
{
	vcpu_hold(touch->vcpu, pause);
	if (touch_start(vm, touch)) {
		vcpu_release(touch->vcpu);
		return -1;
	}
	return vcpu_wait_held(touch->vcpu, left(until));
}

int command_touch_aging(struct vm *vm, char **words)
{
	struct touch touch = { .how = MAILBOX_WRITE };
	double until = now() + vm->timeout;
	uint32_t pause;
	int failed;

	if (!strcmp(words[0], "read"))
		touch.how = MAILBOX_READ;
	else if (strcmp(words[0], "write"))
		return reply_error("usage", "the access must be read or write");
	if (idle_check_marked() || parse_task(vm, words + 1, &touch.vcpu, &touch.count) ||
	    parse_pause(words[3], &pause))
		return -1;
	if (!touch.count)
		return reply_error("usage", "RANGES: needs a page");
	if (start_held(vm, &touch, pause, until))
		return -1;
	vcpu_release(touch.vcpu);
	/* The vCPU may not be left running, whatever becomes of the marks. */
	failed = idle_mark_again();
	if (touch_finish(vm, &touch, left(until)) || failed)
		return -1;
	touch_reply(touch.vcpu);
	return 0;
}

int command_touch_both(struct vm *vm, char **words)
{
	struct touch write = { .how = MAILBOX_WRITE }, read = { .how = MAILBOX_READ };
	double until = now() + vm->timeout;
	uint32_t pause;
	int failed;

	if (parse_task(vm, words, &write.vcpu, &write.count) ||
	    parse_task(vm, words + 2, &read.vcpu, &read.count) ||
	    parse_pause(words[4], &pause))
		return -1;
	if (write.vcpu == read.vcpu || !write.count || !read.count)
		return reply_error("usage", "needs two vCPUs, and a page for each");
	for (uint32_t i = 0; i < write.count; i++) {
		for (uint32_t j = 0; j < read.count; j++) {
			if (write.vcpu->list[i] == read.vcpu->list[j])
				return reply_error("usage", "both have page %u",
						   read.vcpu->list[j]);
		}
	}
	if (start_held(vm, &write, 0, until))
		return -1;
	failed = start_held(vm, &read, pause, until);
	vcpu_release(write.vcpu);
	vcpu_release(read.vcpu);
	/* Both, whatever becomes of the one: neither may be left running. */
	if (!failed)
		failed = touch_finish(vm, &read, left(until));
	if (touch_finish(vm, &write, left(until)) || failed)
		return -1;
	touch_reply(read.vcpu);
	return 0;
}
