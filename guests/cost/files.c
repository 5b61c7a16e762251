// SPDX-License-Identifier: GPL-2.0-only
#include "files.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "reply.h"

bool file_offer(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool taken;

	if (fd < 0)
		die_errno(path);
	taken = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return taken;
}

void file_write(const char *path, const char *text)
{
	if (!file_offer(path, text))
		die_errno(path);
}

size_t file_read(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t length = 0;
	ssize_t got;

	if (fd < 0)
		die_errno(path);
	do {
		got = read(fd, text + length, size - length - 1);
		if (got < 0)
			die_errno(path);
		length += got;
	} while (got && length < size - 1);
	text[length] = '\0';
	close(fd);
	return length;
}
