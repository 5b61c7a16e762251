// SPDX-License-Identifier: GPL-2.0-only
#include "say.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_TEXT 200
#define BYTES_A_LINE 64

/* Shared with the processes that measure, so that the lines of all are numbered in one row. */
static unsigned int *number;

/* As zlib and Ethernet have it: reflected, polynomial 0x04c11db7. */
static uint32_t crc32(const char *text)
{
	uint32_t crc = ~0U;

	for (; *text; text++) {
		crc ^= (unsigned char)*text;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320U : 0);
	}
	return ~crc;
}

static void write_all(const char *text, size_t size)
{
	while (size) {
		ssize_t done = write(STDOUT_FILENO, text, size);

		if (done <= 0)
			_exit(1);
		text += done;
		size -= done;
	}
}

void say(const char *format, ...)
{
	char text[MAX_TEXT], line[MAX_TEXT + 32];
	va_list args;
	int used;

	if (!number) {
		number = mmap(NULL, sizeof(*number), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		if (number == MAP_FAILED)
			_exit(1);
	}
	used = snprintf(text, sizeof(text), "%u ", (*number)++);
	va_start(args, format);
	vsnprintf(text + used, sizeof(text) - used, format, args);
	va_end(args);
	used = snprintf(line, sizeof(line), "cost: %u %08x%s\n", *number - 1, crc32(text),
			strchr(text, ' '));
	write_all(line, used);
}

void say_bytes(const char *name, const unsigned char *bytes, size_t size)
{
	char hex[2 * BYTES_A_LINE + 1];

	for (size_t at = 0; at < size; at += BYTES_A_LINE) {
		size_t count = size - at < BYTES_A_LINE ? size - at : BYTES_A_LINE;

		for (size_t i = 0; i < count; i++)
			snprintf(hex + 2 * i, 3, "%02x", bytes[at + i]);
		say("%s %s", name, hex);
	}
	say("%s end %zu", name, size);
}
