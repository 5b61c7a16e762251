// SPDX-License-Identifier: GPL-2.0-only
/* What is done to the whole memcg that kvm-guest is in, which must not be the root. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "lru_gen.h"
#include "reply.h"

#define CGROUPS "/sys/fs/cgroup"

int command_walk(struct vm *vm, char **words)
{
	struct lru_gen lru_gen;
	int failed;

	(void)vm;
	(void)words;
	if (lru_gen_open(&lru_gen))
		return reply_errno("lru_gen of the memcg that kvm-guest is in");
	failed = lru_gen_age(&lru_gen, 0);
	if (failed)
		reply_errno("aging by lru_gen");
	else
		reply_ok("%s", "");
	lru_gen_close(&lru_gen);
	return failed;
}

/* A file of the memcg that kvm-guest is in. Replies with the error if there is one. */
static int open_own(const char *name, int flags)
{
	char path[sizeof(CGROUPS "/") + LRU_GEN_PATH + 32];
	struct lru_gen lru_gen;
	int fd;

	if (lru_gen_open(&lru_gen))
		return reply_errno("lru_gen of the memcg that kvm-guest is in");
	lru_gen_close(&lru_gen);
	snprintf(path, sizeof(path), CGROUPS "%s/%s", lru_gen.memcg, name);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? reply_errno(name) : fd;
}

static int write_own(const char *name, const char *text)
{
	int fd = open_own(name, O_WRONLY);
	bool good;

	if (fd < 0)
		return -1;
	good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (!good)
		reply_errno(name);
	close(fd);
	return good ? 0 : -1;
}

static int write_pages(const char *name, unsigned long long pages)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", pages * GUEST_PAGE_SIZE);
	return write_own(name, text);
}

int command_reclaim(struct vm *vm, char **words)
{
	uint32_t pages;

	if (parse_number(words[0], vm->pages + 1, "PAGES", &pages) ||
	    write_pages("memory.reclaim", pages))
		return -1;
	reply_ok("%s", "");
	return 0;
}

static int pages_in_use(unsigned long long *pages)
{
	int fd = open_own("memory.current", O_RDONLY);
	char text[32] = "";
	ssize_t size;

	if (fd < 0)
		return -1;
	size = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (size <= 0)
		return reply_errno("memory.current");
	*pages = strtoull(text, NULL, 10) / GUEST_PAGE_SIZE;
	return 0;
}

/* The kernel returns from the first write when no more than the limit is charged, or gives up. */
int command_squeeze(struct vm *vm, char **words)
{
	unsigned long long used, left;
	uint32_t pages;
	bool failed;

	if (parse_number(words[0], vm->pages + 1, "PAGES", &pages) || pages_in_use(&used))
		return -1;
	if (used < pages)
		return reply_error("usage", "PAGES is more than is in use");
	failed = write_pages("memory.high", used - pages) || pages_in_use(&left);
	if (write_own("memory.high", "max") || failed)
		return -1;
	reply_ok(" left=%llu high=%llu", left, used - pages);
	return 0;
}
