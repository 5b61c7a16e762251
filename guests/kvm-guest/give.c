// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hands the VM's fd, or another one that holds the VM, to a keeper, which opened its
 * socket before this VM was made.
 */
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "array_size.h"
#include "commands.h"
#include "keeper.h"
#include "reply.h"

static int send_fd(int socket, int fd)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { .header = {
		.cmsg_len = CMSG_LEN(sizeof(fd)),
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
	} };
	struct iovec data = { .iov_base = "", .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(socket, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static const struct {
	const char *name;
	bool vcpu;
	bool statistics;
} holders[] = {
	{ "vm", false, false },
	{ "vcpu", true, false },
	{ "vm-stats", false, true },
	{ "vcpu-stats", true, true },
};

/* Statistics have an fd of their own for each that asks: @fd is of whom they are. */
static int give_statistics(int socket, int fd)
{
	int own = ioctl(fd, KVM_GET_STATS_FD, NULL);
	int result = 0;

	if (own < 0)
		return reply_errno("KVM_GET_STATS_FD");
	if (send_fd(socket, own))
		result = reply_errno("the keeper's socket");
	close(own);
	return result;
}

static int give(const struct vm *vm, int socket, size_t holder)
{
	int fd = holders[holder].vcpu ? vm->vcpus[0].fd : vm->fd;

	if (holders[holder].statistics)
		return give_statistics(socket, fd);
	return send_fd(socket, fd) ? reply_errno("the keeper's socket") : 0;
}

int command_give(struct vm *vm, char **words)
{
	struct sockaddr_un address;
	size_t holder = 0;
	socklen_t size;
	int fd, result = -1;

	while (holder < ARRAY_SIZE(holders) && strcmp(words[1], holders[holder].name))
		holder++;
	if (holder == ARRAY_SIZE(holders))
		return reply_error("usage", "expected: give NAME vm|vcpu|vm-stats|vcpu-stats");
	if (!keeper_address(words[0], &address, &size))
		return reply_error("usage", "no keeper can be called so");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, size))
		reply_errno("the keeper's socket");
	else
		result = give(vm, fd, holder);
	if (fd >= 0)
		close(fd);
	if (!result)
		reply_ok("%s", "");
	return result;
}
