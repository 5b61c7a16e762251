// SPDX-License-Identifier: GPL-2.0-only
/* What is done to the whole memcg that kvm-guest is in, which must not be the root. */
#include <fcntl.h>
#include <stdio.h>
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

static int reclaim(const char *memcg, uint32_t pages)
{
	char path[sizeof(CGROUPS "/memory.reclaim") + LRU_GEN_PATH], text[32];
	int fd, size;
	bool good;

	snprintf(path, sizeof(path), CGROUPS "%s/memory.reclaim", memcg);
	size = snprintf(text, sizeof(text), "%llu", (unsigned long long)pages * GUEST_PAGE_SIZE);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return reply_errno("memory.reclaim");
	good = write(fd, text, size) == size;
	if (good)
		reply_ok("%s", "");
	else
		reply_errno("memory.reclaim");
	close(fd);
	return good ? 0 : -1;
}

int command_reclaim(struct vm *vm, char **words)
{
	struct lru_gen lru_gen;
	uint32_t pages;

	if (parse_number(words[0], vm->pages + 1, "PAGES", &pages))
		return -1;
	if (lru_gen_open(&lru_gen))
		return reply_errno("lru_gen of the memcg that kvm-guest is in");
	lru_gen_close(&lru_gen);
	return reclaim(lru_gen.memcg, pages);
}
