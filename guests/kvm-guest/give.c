// SPDX-License-Identifier: GPL-2.0-only
/*
 * Hands the VM's fd, or another one that holds the VM, to a keeper, which opened its
 * socket before this VM was made.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

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

/* Statistics have an fd of their own for each that asks, which is closed with this one. */
static int give(int socket, int fd, bool statistics)
{
	int own = statistics ? ioctl(fd, KVM_GET_STATS_FD, NULL) : -1;
	int failed;

	if (statistics && own < 0)
		return reply_errno("KVM_GET_STATS_FD");
	failed = send_fd(socket, statistics ? own : fd);
	if (own >= 0)
		close(own);
	return failed ? reply_errno("the keeper's socket") : 0;
}

int command_give(struct vm *vm, char **words)
{
	bool statistics = strstr(words[1], "-stats");
	bool vcpu = !strncmp(words[1], "vcpu", strlen("vcpu"));
	struct sockaddr_un address;
	socklen_t size;
	int fd, result = -1;

	if (strcmp(words[1], "vm") && strcmp(words[1], "vcpu") &&
	    strcmp(words[1], "vm-stats") && strcmp(words[1], "vcpu-stats"))
		return reply_error("usage", "expected: give NAME vm|vcpu|vm-stats|vcpu-stats");
	if (!keeper_address(words[0], &address, &size))
		return reply_error("usage", "no keeper can be called so");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, size))
		reply_errno("the keeper's socket");
	else
		result = give(fd, vcpu ? vm->vcpus[0].fd : vm->fd, statistics);
	if (fd >= 0)
		close(fd);
	if (!result)
		reply_ok("%s", "");
	return result;
}
