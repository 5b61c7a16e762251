# SPDX-License-Identifier: GPL-2.0-only
"""Linux guests: QEMU with KVM on a host, and in it a Linux whose touches are known."""

# What a check may take, and all of them in a cell, beyond what others do: each boots a guest, and
# an emulated host on a busy machine takes a minute for that.
LONGEST = 180.0
ALTOGETHER = 800.0
# What of a check's time is not the guest's: to end it, and to put back what the check has changed.
ENDING = 60.0
