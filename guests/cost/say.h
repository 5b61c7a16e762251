/* SPDX-License-Identifier: GPL-2.0-only */
/* What goes to the console: numbered lines, each with its checksum. */
#ifndef SAY_H
#define SAY_H

#include <stddef.h>

#include "reply.h"	/* __printf() */

/* "cost: NUMBER CRC TEXT": the CRC-32 of "NUMBER TEXT" tells a line that others wrote into. */
void say(const char *format, ...) __printf(1, 2);

/* The same for bytes: "NAME HEX" as often as it takes, then "NAME end SIZE". */
void say_bytes(const char *name, const unsigned char *bytes, size_t size);

#endif
