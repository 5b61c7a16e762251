/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Replies to commands: each is one line, written to standard output at once.
 * A handler returns 0 after reply_ok(), or what reply_error() returns.
 */
#ifndef REPLY_H
#define REPLY_H

#include <stdio.h>

#define __printf(a, b) __attribute__((__format__(printf, a, b)))

/* The line under way. Handlers may print fields " key=value" after reply_ok(). */
extern FILE *reply;

void reply_init(void);

/*
 * Begins this command's part of the line; what it had written is dropped. The
 * parts of commands before it in the same line stay.
 */
void reply_begin(const char *first);
void reply_ok(const char *fields, ...) __printf(1, 2);

/* Makes the line "error KIND ...". Always returns -1. */
int reply_error(const char *kind, const char *format, ...) __printf(2, 3);

/* "error system WHAT: ..." for errno. Always returns -1. */
int reply_errno(const char *what);

/* Ends a command's part: the next one's follows after ";". */
void reply_next(void);

/* Writes the line. */
void reply_send(void);

/* Writes "error fatal WHAT: ..." with errno's text, and ends the program. */
_Noreturn void die_errno(const char *what);
/* The same with a text instead of errno. */
_Noreturn void die(const char *format, ...) __printf(1, 2);

#endif
