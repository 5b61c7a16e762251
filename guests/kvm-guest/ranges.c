// SPDX-License-Identifier: GPL-2.0-only
#include "ranges.h"

#include <ctype.h>
#include <stdlib.h>

/* Reads one decimal number below @pages; the bound keeps it from overflowing. */
static bool parse_index(const char **text, uint32_t pages, uint32_t *index, const char **why)
{
	const char *at = *text;
	uint64_t value = 0;

	if (!isdigit((unsigned char)*at)) {
		*why = "malformed ranges of pages";
		return false;
	}
	for (; isdigit((unsigned char)*at); at++) {
		value = value * 10 + (*at - '0');
		if (value >= pages) {
			*why = "a page beyond the tested slot";
			return false;
		}
	}
	*text = at;
	*index = value;
	return true;
}

static int64_t parse_into(const char *text, uint32_t pages, uint32_t *list, bool *seen,
			  const char **why)
{
	int64_t count = 0;
	uint32_t first, last;

	for (;;) {
		if (!parse_index(&text, pages, &first, why))
			return -1;
		last = first;
		if (*text == '-') {
			text++;
			if (!parse_index(&text, pages, &last, why))
				return -1;
		}
		if (last < first) {
			*why = "a range that ends before it starts";
			return -1;
		}
		for (uint32_t page = first; page <= last; page++) {
			if (seen[page]) {
				*why = "a page named twice";
				return -1;
			}
			seen[page] = true;
			list[count++] = page;
		}
		if (!*text)
			return count;
		if (*text++ != ',') {
			*why = "malformed ranges of pages";
			return -1;
		}
	}
}

int64_t ranges_parse(const char *text, uint32_t pages, uint32_t *list, const char **why)
{
	int64_t count;
	bool *seen;

	if (text[0] == '-' && !text[1])
		return 0;
	seen = calloc(pages, sizeof(*seen));
	if (!seen) {
		*why = "out of memory";
		return -1;
	}
	count = parse_into(text, pages, list, seen, why);
	free(seen);
	return count;
}

uint32_t ranges_run(const uint32_t *list, uint32_t count)
{
	uint32_t run = 1;

	while (run < count && list[run] == list[0] + run)
		run++;
	return run;
}

void ranges_print(FILE *out, const bool *member, uint32_t pages)
{
	const char *comma = "";
	uint32_t page = 0, first;

	while (page < pages) {
		if (!member[page]) {
			page++;
			continue;
		}
		first = page;
		while (page + 1 < pages && member[page + 1])
			page++;
		fprintf(out, "%s%u", comma, first);
		if (page > first)
			fprintf(out, "-%u", page);
		comma = ",";
		page++;
	}
	if (!*comma)
		fputs("-", out);
}
