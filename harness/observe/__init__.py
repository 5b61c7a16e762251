# SPDX-License-Identifier: GPL-2.0-only
"""Readers of what a kernel shows: text in, typed values out."""
