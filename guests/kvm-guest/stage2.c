// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's dump of this VM's stage-2 tables, passed on as it is. Another
 * process could read it as well, but starting one disturbs a vCPU: see "stage2"
 * in docs/guest-protocol.md.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "commands.h"
#include "reply.h"

#define DUMP "/sys/kernel/debug/kvm/%d-%d/stage2_page_tables"

/* As one word: the dump itself has neither "_" nor "|". */
static void print_encoded(char *text, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (text[i] == ' ')
			text[i] = '_';
		else if (text[i] == '\n')
			text[i] = '|';
	}
	fwrite(text, 1, size, reply);
}

int command_stage2(struct vm *vm, char **words)
{
	static char buffer[1 << 16];
	char path[sizeof(DUMP) + 20];
	ssize_t got;
	int fd;

	(void)words;
	snprintf(path, sizeof(path), DUMP, getpid(), vm->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return reply_errno(path);
	reply_ok(" dump=");
	while ((got = read(fd, buffer, sizeof(buffer))) > 0)
		print_encoded(buffer, got);
	close(fd);
	return got < 0 ? reply_errno(path) : 0;
}
