/* SPDX-License-Identifier: GPL-2.0-only */
/* Small files of the kernel. */
#ifndef FILES_H
#define FILES_H

#include <stdbool.h>
#include <stddef.h>

/* Writes @text at once; fatal on failure. */
void file_write(const char *path, const char *text);

/* The same, but false if the kernel refuses the text. */
bool file_offer(const char *path, const char *text);

/* Reads up to @size - 1 bytes and ends them with a zero; fatal on failure. Returns how many. */
size_t file_read(const char *path, char *text, size_t size);

#endif
