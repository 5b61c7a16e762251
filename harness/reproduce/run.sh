#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
#   sh run.sh           boot Image and do the steps: is the failure seen?
#   sh run.sh KERNEL    the same with another kernel's Image
#   sh run.sh -l LOG    judge the log of a console instead, such as that of an arm64 machine:
#                       kexec -l Image --initrd=initramfs.cpio.gz \
#                           --command-line="console=YOURS $(cat cmdline)" && kexec -e
#                       (it switches itself off at the end; KVM needs EL2)
#
# Exit code: 0 it is seen, 1 it is not, 2 that could not be told. Without an option it needs
# qemu-system-aarch64, 7.2 or newer, and coreutils' timeout. QEMU='...' sets another program,
# SANDBOX= (empty) leaves its sandbox out where QEMU was built without.
@SETTINGS@

@COMMON@

@JUDGE@

work=$(mktemp -d) || die "no folder for the console's log"
console=$work/console.log
if [ -n "$log" ]; then
	cp "$log" "$console" || exit 2
fi
cd "$(dirname "$0")" || exit 2
if [ -z "$log" ]; then
	for program in timeout "${QEMU:-qemu-system-aarch64}"; do
		command -v "$program" >/dev/null || die "$program is missing"
	done
fi
attempt=0
while :; do
	attempt=$((attempt + 1))
	if [ -z "$log" ]; then
		echo "boot $attempt of at most $loops, up to $limit s each ..."
		boot </dev/null >"$console" 2>"$work/qemu.err"
		status=$?
		case $status in
		0 | 124) ;; # 124: its time was up, which is how a kernel that hangs looks
		*) cat "$work/qemu.err" >&2; die "QEMU ended with $status" ;;
		esac
	fi
	judge
	found=$?
	if [ -n "$log" ] || [ $found -eq 0 ] || [ $attempt -ge "$loops" ]; then
		tell $found
	fi
done
