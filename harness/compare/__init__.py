# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness compare`: what differs between two runs of like things (docs/compare.md)."""
