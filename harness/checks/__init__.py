# SPDX-License-Identifier: GPL-2.0-only
"""Checks: pytest files that run in a cell, and the plugin that gives them its fixtures."""
