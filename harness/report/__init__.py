# SPDX-License-Identifier: GPL-2.0-only
"""Views of a run; each a pure function of its summary."""
