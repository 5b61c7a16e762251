/* SPDX-License-Identifier: GPL-2.0-only */
/* Sets of page indices as text: "0-3,7"; the empty set is "-". */
#ifndef RANGES_H
#define RANGES_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Reads a set of indices below @pages into @list, in the order of the text.
 * @list has room for @pages indices. Returns their number, or -1 with *@why
 * set when the text is malformed, out of bounds or names a page twice.
 */
int64_t ranges_parse(const char *text, uint32_t pages, uint32_t *list, const char **why);

/* How many of the first of @count indices follow each other, one at least. */
uint32_t ranges_run(const uint32_t *list, uint32_t count);

/* Writes the shortest text for the indices below @pages whose @member is true. */
void ranges_print(FILE *out, const bool *member, uint32_t pages);

#endif
