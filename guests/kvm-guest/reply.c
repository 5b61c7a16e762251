// SPDX-License-Identifier: GPL-2.0-only
#include "reply.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

FILE *reply;

static char *line;
static size_t line_size;
static long part_start;

static void write_all(const char *text, size_t size)
{
	while (size) {
		ssize_t done = write(STDOUT_FILENO, text, size);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)	/* nobody is left to tell */
			_exit(EXIT_FAILURE);
		text += done;
		size -= done;
	}
}

void reply_init(void)
{
	reply = open_memstream(&line, &line_size);
	if (!reply)
		die_errno("open_memstream");
}

void reply_begin(const char *first)
{
	fseek(reply, part_start, SEEK_SET);
	fputs(first, reply);
}

void reply_ok(const char *fields, ...)
{
	va_list args;

	reply_begin("ok");
	va_start(args, fields);
	vfprintf(reply, fields, args);
	va_end(args);
}

int reply_error(const char *kind, const char *format, ...)
{
	va_list args;

	reply_begin("error ");
	fprintf(reply, "%s ", kind);
	va_start(args, format);
	vfprintf(reply, format, args);
	va_end(args);
	return -1;
}

int reply_errno(const char *what)
{
	return reply_error("system", "%s: %s (errno %d)", what, strerror(errno), errno);
}

void reply_next(void)
{
	fputc(';', reply);
	part_start = ftell(reply);
}

void reply_send(void)
{
	fputc('\n', reply);
	if (fflush(reply))
		die_errno("fflush");
	part_start = 0;
	write_all(line, line_size);
}

_Noreturn void die(const char *format, ...)
{
	char text[512] = "error fatal ";
	size_t used = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + used, sizeof(text) - used - 1, format, args);
	va_end(args);
	used = strlen(text);
	text[used++] = '\n';
	write_all(text, used);
	_exit(EXIT_FAILURE);
}

_Noreturn void die_errno(const char *what)
{
	int error = errno;

	die("%s: %s (errno %d)", what, strerror(error), error);
}
