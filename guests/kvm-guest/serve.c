// SPDX-License-Identifier: GPL-2.0-only
#include "serve.h"

#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "reply.h"

void serve(bool (*run)(void *context, char *line), void *context)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	bool more = true;

	while (more && (length = getline(&line, &room, stdin)) > 0) {
		if (line[length - 1] == '\n')
			line[--length] = 0;
		if (strlen(line) == (size_t)length)
			more = run(context, line);
		else
			reply_error("usage", "a line with a zero byte");
		reply_send();
	}
}
