# SPDX-License-Identifier: GPL-2.0-only
"""What aging costs a kernel, in instructions that it retires under TCG (docs/cost.md)."""
