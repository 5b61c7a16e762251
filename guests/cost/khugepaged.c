// SPDX-License-Identifier: GPL-2.0-only
#include "khugepaged.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "reply.h"
#include "wait.h"

#define NAME "khugepaged"
#define FOLDER "/sys/kernel/mm/transparent_hugepage/" NAME "/"
#define SLEEP FOLDER "scan_sleep_millisecs"
/* More than the tested pages, so that one look is at all of them. */
#define PAGES_TO_SCAN "65536"
/* Longer than any boot. To write it is to wake khugepaged. */
#define SLEEP_MS "4000000000"

static unsigned long read_number(const char *path)
{
	char text[32];

	file_read(path, text, sizeof(text));
	return strtoul(text, NULL, 10);
}

/* Of a thread that has ended meanwhile it is not. */
static bool is_khugepaged(pid_t pid)
{
	char path[64], name[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (!fgets(name, sizeof(name), file))
		name[0] = '\0';
	fclose(file);
	return !strcmp(name, NAME "\n");
}

pid_t khugepaged_thread(void)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	pid_t found = 0;

	if (!dir)
		die_errno("/proc");
	while (!found && (entry = readdir(dir))) {
		pid_t pid = strtol(entry->d_name, NULL, 10);

		if (pid > 0 && is_khugepaged(pid))
			found = pid;
	}
	closedir(dir);
	return found;
}

void khugepaged_stop(void)
{
	int waited = 0;

	file_write(FOLDER "max_ptes_none", "0");
	file_write(FOLDER "pages_to_scan", PAGES_TO_SCAN);
	file_write(SLEEP, SLEEP_MS);
	/* That woke it. */
	wait_a_ms(&waited, NAME);
}

void khugepaged_scan(void)
{
	unsigned long before = read_number(FOLDER "full_scans");
	int waited = 0;

	file_write(SLEEP, SLEEP_MS);
	while (read_number(FOLDER "full_scans") == before)
		wait_a_ms(&waited, NAME);
}
