// SPDX-License-Identifier: GPL-2.0-only
#include "keeper.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "protocol.h"
#include "reply.h"
#include "serve.h"

#define MAX_KEPT 16
#define NAME_PREFIX "kvm-guest-keeper-"
/* How long "take" waits for an fd, in milliseconds. */
#define TAKE_PATIENCE 5000

struct keeper {
	int listener;
	int fds[MAX_KEPT];
	int count;
};

/* In the abstract name space: the name goes with the process, however it ends. */
bool keeper_address(const char *name, struct sockaddr_un *address, socklen_t *size)
{
	size_t prefix = strlen(NAME_PREFIX), length = strlen(name);

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (!length || 1 + prefix + length > sizeof(address->sun_path))
		return false;
	memcpy(address->sun_path + 1, NAME_PREFIX, prefix);
	memcpy(address->sun_path + 1 + prefix, name, length);
	*size = offsetof(struct sockaddr_un, sun_path) + 1 + prefix + length;
	return true;
}

/* The fd that came with one byte of data, or -1. */
static int receive_fd(int socket)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec data = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr message = {
		.msg_iov = &data,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *header;
	ssize_t got;
	int fd;

	got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	if (!got)
		errno = ECONNRESET;
	if (got != 1)
		return -1;
	header = CMSG_FIRSTHDR(&message);
	if (!header || header->cmsg_type != SCM_RIGHTS ||
	    header->cmsg_len != CMSG_LEN(sizeof(fd))) {
		errno = EBADMSG;
		return -1;
	}
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

static int wait_readable(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };
	int ready = poll(&poller, 1, TAKE_PATIENCE);

	if (!ready)
		errno = ETIMEDOUT;
	return ready > 0 ? 0 : -1;
}

static void take(struct keeper *keeper)
{
	int socket, fd = -1;

	if (keeper->count == MAX_KEPT) {
		reply_error("usage", "%d are kept already", MAX_KEPT);
		return;
	}
	if (wait_readable(keeper->listener)) {
		reply_errno("poll for who gives");
		return;
	}
	socket = accept4(keeper->listener, NULL, NULL, SOCK_CLOEXEC);
	if (socket >= 0 && !wait_readable(socket))
		fd = receive_fd(socket);
	if (fd < 0) {
		reply_errno("an fd by SCM_RIGHTS");
	} else {
		keeper->fds[keeper->count++] = fd;
		reply_ok(" kept=%d", keeper->count);
	}
	if (socket >= 0)
		close(socket);
}

static void drop(struct keeper *keeper)
{
	while (keeper->count)
		close(keeper->fds[--keeper->count]);
	reply_ok(" kept=%d", keeper->count);
}

static bool run(void *context, char *line)
{
	if (!strcmp(line, "take"))
		take(context);
	else if (!strcmp(line, "drop"))
		drop(context);
	else if (strcmp(line, "quit"))
		reply_error("usage", "expected: take, drop or quit");
	else
		reply_ok("%s", "");
	return strcmp(line, "quit");
}

void keeper_serve(const char *name, double seconds)
{
	struct keeper keeper = { .count = 0 };
	struct sockaddr_un address;
	socklen_t size;

	alarm((unsigned int)seconds + 1);
	if (!keeper_address(name, &address, &size))
		die("no socket can be called %s", name);
	keeper.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (keeper.listener < 0 || bind(keeper.listener, (struct sockaddr *)&address, size) ||
	    listen(keeper.listener, MAX_KEPT))
		die_errno("the keeper's socket");
	reply_begin("ready");
	fprintf(reply, " protocol=%d pid=%d keeper=%s", PROTOCOL, getpid(), name);
	reply_send();
	serve(run, &keeper);
}
