# SPDX-License-Identifier: GPL-2.0-only
"""Scripts that break the user space of the test bed's machine, for runs and for their checks.

Its shell is busybox's, which takes its own applets and never a file of the same name. So what
stands in for a broken reboot(8) is a broken systemctl(1), on a machine that seems to have systemd.
"""

from __future__ import annotations

REBOOT_BY = """\
mkdir -p /run/systemd/system
printf '%s\\n' '#!/bin/sh' '[ "$1" != reboot ] || ( sleep 1; {what} ) > /dev/null 2>&1 &' \
	> /usr/bin/systemctl
chmod 755 /usr/bin/systemctl"""
# An image that lies on the machine.
INTO_OTHER = "kexec -a -l /tmp/other --initrd=/boot/initrd --command-line=console=ttyAMA0; kexec -e"


def reboot_by(what: str) -> str:
    """Makes the machine do that when it is told to reboot."""
    return REBOOT_BY.format(what=what)
