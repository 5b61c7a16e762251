/* SPDX-License-Identifier: GPL-2.0-only */
/* KVM's own counters of a vCPU's exits (binary statistics, KVM_GET_STATS_FD). */
#ifndef VCPU_STATS_H
#define VCPU_STATS_H

#include <stdint.h>

#define VCPU_STATS 7

struct vcpu_stats {
	int fd;
	uint64_t offsets[VCPU_STATS];
};

struct vcpu_counts {
	uint64_t values[VCPU_STATS];
};

/* Finds the counters of the vCPU of @vcpu_fd; fatal if KVM lacks one. */
void vcpu_stats_open(struct vcpu_stats *stats, int vcpu_fd);

/* Reads them. This neither stops nor disturbs the vCPU. */
struct vcpu_counts vcpu_stats_read(const struct vcpu_stats *stats);

/* Of these, how often the vCPU has left the guest. */
uint64_t vcpu_stats_exits(const struct vcpu_stats *stats);

/* Prints " NAME=COUNT" to the reply for what was counted since @before. */
void vcpu_stats_print_since(const struct vcpu_stats *stats, struct vcpu_counts before);

#endif
