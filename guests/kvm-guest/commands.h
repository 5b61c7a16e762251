/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The commands of docs/guest-protocol.md. Each handler gets the words after the
 * command's name, composes the reply and returns 0 or -1 (an error reply).
 */
#ifndef COMMANDS_H
#define COMMANDS_H

#include <stdint.h>

#include "vm.h"

/*
 * Carries out the commands of one line, with ";" between them, up to the first
 * that fails, and composes the reply. Returns false after "quit".
 */
bool command_run(void *vm, char *line);

/* touch.c */
int command_populate(struct vm *vm, char **words);
int command_touch(struct vm *vm, char **words);

/* touch_beside.c */
int command_touch_aging(struct vm *vm, char **words);
int command_touch_both(struct vm *vm, char **words);

/* write_dropped.c */
int command_write_dropped(struct vm *vm, char **words);

/* plant.c */
int command_plant(struct vm *vm, char **words);

/* entries.c */
int command_hafdbs(struct vm *vm, char **words);
int command_entries(struct vm *vm, char **words);

/* spin.c */
int command_spin(struct vm *vm, char **words);
int command_spin_stop(struct vm *vm, char **words);
int command_spin_count(struct vm *vm, char **words);
int command_spin_wait(struct vm *vm, char **words);
int command_spin_value(struct vm *vm, char **words);
int command_pin(struct vm *vm, char **words);

/* memory.c */
int command_verify(struct vm *vm, char **words);
int command_advise(struct vm *vm, char **words);
int command_replace(struct vm *vm, char **words);
int command_take(struct vm *vm, char **words);
int command_lock(struct vm *vm, char **words);
int command_drain(struct vm *vm, char **words);

/* race.c */
int command_race(struct vm *vm, char **words);

/* churn.c */
int command_churn(struct vm *vm, char **words);
int command_crowd(struct vm *vm, char **words);

/* protected.c */
int command_protected_vm(struct vm *vm, char **words);

/* give.c */
int command_give(struct vm *vm, char **words);

/* stage2.c */
int command_stage2(struct vm *vm, char **words);

/* pagemap.c */
int command_pfns(struct vm *vm, char **words);
int command_flags(struct vm *vm, char **words);
int command_flagged(struct vm *vm, char **words);

/* idle.c */
int command_idle_mark(struct vm *vm, char **words);
int command_idle_read(struct vm *vm, char **words);
int command_idle_again(struct vm *vm, char **words);

/* memcg.c */
int command_walk(struct vm *vm, char **words);
int command_reclaim(struct vm *vm, char **words);
int command_squeeze(struct vm *vm, char **words);

/* clock.c */
int command_clock(struct vm *vm, char **words);

/* dirty.c */
int command_flush(struct vm *vm, char **words);
int command_dirty_log(struct vm *vm, char **words);
int command_dirty(struct vm *vm, char **words);
int command_clear_log(struct vm *vm, char **words);
int command_harvest(struct vm *vm, char **words);
int command_reset_rings(struct vm *vm, char **words);

/* readonly.c */
int command_readonly(struct vm *vm, char **words);
int command_refused(struct vm *vm, char **words);

/* mprotect.c */
int command_mprotect(struct vm *vm, char **words);

/* uffd.c */
int command_uffd_protect(struct vm *vm, char **words);

/* scan.c */
int command_pagemap_scan(struct vm *vm, char **words);

/* move.c */
int command_move(struct vm *vm, char **words);
int command_moved(struct vm *vm, char **words);

/* move_slot.c */
int command_move_slot(struct vm *vm, char **words);
int command_slot(struct vm *vm, char **words);
int command_slot_beyond(struct vm *vm, char **words);

/* reset.c */
int command_reset(struct vm *vm, char **words);

/* snapshot.c */
int command_snapshot(struct vm *vm, char **words);

/* Words of a command as values; each returns 0, or -1 with the error as the reply. */
int parse_number(const char *word, uint32_t limit, const char *what, uint32_t *number);
int parse_vcpu(struct vm *vm, const char *word, struct vcpu **vcpu);
/* Room for all pages of the slot, for the caller to free. */
uint32_t *new_pages(const struct vm *vm);
/* @list has that room. */
int parse_pages(const struct vm *vm, const char *word, uint32_t *list, uint32_t *count);
/* "VCPU RANGES" for a vCPU that is idle; the pages go to its list. */
int parse_task(struct vm *vm, char **words, struct vcpu **vcpu, uint32_t *count);

#endif
