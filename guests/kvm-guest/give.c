// SPDX-License-Identifier: GPL-2.0-only
/* Hands the VM's fd to a keeper, which opened its socket before this VM was made. */
#include <errno.h>
#include <string.h>
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

int command_give(struct vm *vm, char **words)
{
	struct sockaddr_un address;
	socklen_t size;
	int fd, failed;

	if (!keeper_address(words[0], &address, &size))
		return reply_error("usage", "no keeper can be called so");
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	failed = fd < 0 || connect(fd, (struct sockaddr *)&address, size) ||
		 send_fd(fd, vm->fd);
	if (failed)
		reply_errno("the keeper's socket");
	else
		reply_ok("%s", "");
	if (fd >= 0)
		close(fd);
	return failed ? -1 : 0;
}
