# SPDX-License-Identifier: GPL-2.0-only
"""A sound kernel's checks, many times over: how often is there a false alarm?"""
