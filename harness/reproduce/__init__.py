# SPDX-License-Identifier: GPL-2.0-only
"""Folders that show a failure without the harness: docs/reproduce.md."""
