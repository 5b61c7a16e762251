#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
#   sh run.sh -l LOG    what an arm64 machine's console said, in LOG: is the failure seen?
#
# The kernel failed on a machine of a lab, which QEMU is not: boot it on one like that, and keep what
# its console says:
#                       kexec -l Image --initrd=initramfs.cpio.gz \
#                           --command-line="console=YOURS $(cat cmdline)" && kexec -e
#                       (it switches itself off at the end; KVM needs EL2)
#
# Exit code: 0 it is seen, 1 it is not, 2 that could not be told.
@SETTINGS@

die() {
	echo "run.sh: $*" >&2
	exit 2
}

@JUDGE@

{ [ $# -eq 2 ] && [ "$1" = -l ]; } || die "usage: sh run.sh -l LOG; the head of this file says how to come by one"
work=$(mktemp -d) || die "no folder for the console's log"
cp "$2" "$work/console.log" || exit 2
cd "$(dirname "$0")" || exit 2
judge
tell $?
