/* SPDX-License-Identifier: GPL-2.0-only */
/* Which bits of the bitmap of idle page tracking stand for the tested pages. */
#ifndef MARKS_H
#define MARKS_H

#include <stddef.h>
#include <stdint.h>

#include "vm.h"

#define MARKS_AT_ONCE 512	/* words: what one write of a file in sysfs takes */

/* Words that follow each other in the bitmap, each with a tested page. */
struct marks_run {
	uint64_t first;
	size_t words;
	uint64_t bits[MARKS_AT_ONCE];
};

struct marks {
	int fd;
	struct marks_run *runs;
	size_t count;
};

/* Looks where the tested pages are now; all must be present. */
void marks_find(struct marks *marks, const struct vm *vm);

/* Marks them idle, which ages them: as many writes as there are runs, and nothing else. */
void marks_set(const struct marks *marks);

/* The same writes without a single bit, which do nothing. */
void marks_set_none(const struct marks *marks);

void marks_free(const struct marks *marks);

#endif
