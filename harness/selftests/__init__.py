# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own KVM selftests: built from the tree under test, run on the host, read as KTAP."""
