# SPDX-License-Identifier: GPL-2.0-only
"""What was measured, base against patched, and what can be said of it (docs/figures.md)."""
