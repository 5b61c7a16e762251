# SPDX-License-Identifier: GPL-2.0-only
"""Where the harness puts things on a host: all in one folder, the same on every kind of host."""

HOME = "/var/lib/kvm-harness"
# What one cell brings: kernel, programs. It goes again with the cell.
PROGRAMS = f"{HOME}/work"
