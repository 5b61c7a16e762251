# SPDX-License-Identifier: GPL-2.0-only
"""Ways to have a host, each behind the small protocols of protocols.py."""
