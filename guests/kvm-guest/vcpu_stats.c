// SPDX-License-Identifier: GPL-2.0-only
#include "vcpu_stats.h"

#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "reply.h"

/* The names are KVM's; "exits" counts every exit, whoever handles it. */
static const char * const names[VCPU_STATS] = {
	"exits",
	"mmio_exit_user",
	"mmio_exit_kernel",
	"signal_exits",
	"hvc_exit_stat",
	"wfe_exit_stat",
	"wfi_exit_stat",
};

static void read_at(int fd, void *into, size_t size, uint64_t offset)
{
	if (pread(fd, into, size, offset) != (ssize_t)size)
		die_errno("pread of a vCPU's statistics");
}

static void find(struct vcpu_stats *stats, const struct kvm_stats_header *header,
		 const char *descriptors, size_t size, int which)
{
	for (uint32_t i = 0; i < header->num_desc; i++) {
		const struct kvm_stats_desc *one = (const void *)(descriptors + i * size);

		if (!strncmp(one->name, names[which], header->name_size)) {
			stats->offsets[which] = header->data_offset + one->offset;
			return;
		}
	}
	die("this KVM has no vCPU statistic %s", names[which]);
}

void vcpu_stats_open(struct vcpu_stats *stats, int vcpu_fd)
{
	struct kvm_stats_header header;
	char *descriptors;
	size_t size;

	stats->fd = ioctl(vcpu_fd, KVM_GET_STATS_FD, NULL);
	if (stats->fd < 0)
		die_errno("KVM_GET_STATS_FD");
	read_at(stats->fd, &header, sizeof(header), 0);
	size = sizeof(struct kvm_stats_desc) + header.name_size;
	descriptors = malloc(size * header.num_desc);
	if (!descriptors)
		die("out of memory");
	read_at(stats->fd, descriptors, size * header.num_desc, header.desc_offset);
	for (int i = 0; i < VCPU_STATS; i++)
		find(stats, &header, descriptors, size, i);
	free(descriptors);
}

struct vcpu_counts vcpu_stats_read(const struct vcpu_stats *stats)
{
	struct vcpu_counts counts;

	for (int i = 0; i < VCPU_STATS; i++)
		read_at(stats->fd, &counts.values[i], sizeof(uint64_t), stats->offsets[i]);
	return counts;
}

uint64_t vcpu_stats_exits(const struct vcpu_stats *stats)
{
	return vcpu_stats_read(stats).values[0];
}

void vcpu_stats_print_since(const struct vcpu_stats *stats, struct vcpu_counts before)
{
	struct vcpu_counts now = vcpu_stats_read(stats);

	for (int i = 0; i < VCPU_STATS; i++)
		fprintf(reply, " %s=%llu", names[i],
			(unsigned long long)(now.values[i] - before.values[i]));
}
