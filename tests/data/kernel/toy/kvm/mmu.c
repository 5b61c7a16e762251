// SPDX-License-Identifier: GPL-2.0-only
int mmu_pages(int pages)
{
	int old = 0;

	for (int i = 0; i < pages; i++)
		old += i & 1;

	return old;
}

int mmu_age(int page)
{
	return page + 1;
}

int mmu_young(int page)
{
	return page & 1;
}

int mmu_walk(int level)
{
	return level - 1;
}
