// SPDX-License-Identifier: GPL-2.0-only
/* See Documentation/admin-guide/mm/multigen_lru.rst, "Debugfs interface". */
#include "lru_gen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "/sys/kernel/debug/lru_gen"
#define OWN_CGROUP "/proc/self/cgroup"
#define UNIFIED "0::"
/* A line for each generation of each memcg and node: enough for some thousand of them. */
#define MAX_TEXT (1 << 20)
#define MAX_NODES 64
/* Behind the two youngest, where aging leaves what is not used. */
#define OLD_ENOUGH 2

struct lruvec {
	unsigned int memcg;
	unsigned int node;
	unsigned long newest;
};

static int find_memcg(char *path, size_t size)
{
	char line[LRU_GEN_PATH + sizeof(UNIFIED)];
	FILE *file = fopen(OWN_CGROUP, "re");
	int found = -1;

	if (!file)
		return -1;
	errno = ENOENT;
	while (found && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, UNIFIED, strlen(UNIFIED)) || !strcmp(line, UNIFIED "/"))
			continue;
		if (snprintf(path, size, "%s", line + strlen(UNIFIED)) < (int)size)
			found = 0;
	}
	fclose(file);
	return found;
}

int lru_gen_open(struct lru_gen *lru_gen)
{
	if (find_memcg(lru_gen->memcg, sizeof(lru_gen->memcg)))
		return -1;
	lru_gen->fd = open(FILE_NAME, O_RDWR | O_CLOEXEC);
	return lru_gen->fd < 0 ? -1 : 0;
}

void lru_gen_close(const struct lru_gen *lru_gen)
{
	close(lru_gen->fd);
}

/*
 * From the start, one read after the other: with pread() the kernel would go over
 * the file again to find the place, and that lies elsewhere when a generation came.
 * EOVERFLOW if @text is full before the file ends: our memcg may be in what is left.
 */
static int read_all(int fd, char *text, size_t size)
{
	size_t length = 0;
	ssize_t got;

	if (lseek(fd, 0, SEEK_SET))
		return -1;
	do {
		if (length == size - 1) {
			errno = EOVERFLOW;
			return -1;
		}
		got = read(fd, text + length, size - length - 1);
		if (got < 0)
			return -1;
		length += got;
	} while (got);
	text[length] = '\0';
	return 0;
}

/*
 * "memcg ID PATH", then for each node "node N" and its generations, the oldest
 * first. Returns the number of our nodes, those beyond MAX_NODES among them. One
 * that was removed but has pages still may stand there by the same path, before
 * ours.
 */
static unsigned int parse(const char *path, char *text, struct lruvec *lruvecs)
{
	unsigned int count = 0, memcg = 0, node;
	bool ours = false;
	unsigned long seq;
	char *line;

	while ((line = strsep(&text, "\n"))) {
		char name[LRU_GEN_PATH];

		if (sscanf(line, "memcg %u %127s", &memcg, name) == 2) {
			ours = !strcmp(name, path);
			count = ours ? 0 : count;
		} else if (!ours) {
			continue;
		} else if (sscanf(line, " node %u", &node) == 1) {
			if (count < MAX_NODES)
				lruvecs[count] = (struct lruvec){ .memcg = memcg, .node = node };
			count++;
		} else if (count && count <= MAX_NODES && sscanf(line, " %lu", &seq) == 1) {
			lruvecs[count - 1].newest = seq;
		}
	}
	return count;
}

static int look(const struct lru_gen *lru_gen, struct lruvec *lruvecs)
{
	char *text = malloc(MAX_TEXT);
	unsigned int count = 0;
	int result = -1;

	if (!text)
		return -1;
	if (!read_all(lru_gen->fd, text, MAX_TEXT)) {
		count = parse(lru_gen->memcg, text, lruvecs);
		if (count && count <= MAX_NODES)
			result = count;
		else
			errno = count ? EOVERFLOW : ENOENT;
	}
	free(text);
	return result;
}

static int command(const struct lru_gen *lru_gen, char sign, const struct lruvec *lruvec,
		   unsigned long seq, const char *how, uint32_t number)
{
	char text[96];
	int size = snprintf(text, sizeof(text), "%c %u %u %lu %s %u\n", sign, lruvec->memcg,
			    lruvec->node, seq, how, number);

	return write(lru_gen->fd, text, size) == size ? 0 : -1;
}

int lru_gen_age(const struct lru_gen *lru_gen, uint32_t evict)
{
	struct lruvec lruvecs[MAX_NODES];
	int count = look(lru_gen, lruvecs);

	/*
	 * Swap is to be used, and the Bloom filter not to be asked. Where another has
	 * made that generation meanwhile, Linux 6.12 says nothing, later ones EEXIST.
	 */
	for (int i = 0; i < count; i++) {
		if (command(lru_gen, '+', &lruvecs[i], lruvecs[i].newest, "1", 1) &&
		    errno != EEXIST)
			return -1;
	}
	/* Another's walk may be under way, and no younger generation be there yet. */
	for (int i = 0; evict && i < count; i++) {
		if (command(lru_gen, '-', &lruvecs[i], lruvecs[i].newest - OLD_ENOUGH, "200",
			    evict))
			return -1;
	}
	return count < 0 ? -1 : 0;
}
