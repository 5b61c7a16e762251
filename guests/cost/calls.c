// SPDX-License-Identifier: GPL-2.0-only
#include "calls.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "files.h"
#include "say.h"

#define MAX_PROFILE (1 << 16)

#define TRACING "/sys/kernel/tracing/"
#define PROFILE TRACING "function_profile_enabled"
#define NOTIFIERS "kvm_mmu_notifier_*young*"

void calls_count(void)
{
	file_write(TRACING "set_ftrace_filter", NOTIFIERS);
	file_write(PROFILE, "0");
	file_write(PROFILE, "1");
}

/* Lines of "NAME HITS ..." below a head of two lines. */
void calls_tell(const char *metric, uint32_t pages)
{
	static char text[MAX_PROFILE];
	char *rest = text, *line;

	file_write(PROFILE, "0");
	file_read(TRACING "trace_stat/function0", text, sizeof(text));
	while ((line = strsep(&rest, "\n"))) {
		char name[65];
		unsigned long hits;

		if (sscanf(line, " kvm_mmu_notifier_%64s %lu", name, &hits) == 2)
			say("calls %s pages=%" PRIu32 " function=kvm_mmu_notifier_%s hits=%lu",
			    metric, pages, name, hits);
	}
}
