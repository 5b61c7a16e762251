// SPDX-License-Identifier: GPL-2.0-only
int mmu_age(int page);

int start(void)
{
	return mmu_age(41);
}
