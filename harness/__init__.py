# SPDX-License-Identifier: GPL-2.0-only
"""kvm-harness: from a patch series to a verdict on KVM/arm64 stage-2 page aging."""

__version__ = "0.1.0"
