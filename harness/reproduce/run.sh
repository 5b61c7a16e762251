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

# What a step showed, line by line.
shown() {
	sed -n "s/^repro: $step < //p" "$work/log"
}

over() {
	grep -Fqx 'repro: over' "$work/log"
}

# Whether the failure is seen in $work/log: 0, 1, or 2
judge() {
	case $kind in
	report)
		sed 's/0x[0-9a-f]*/N/g; s/[0-9][0-9]*/N/g' "$work/log" >"$work/plain"
		while IFS= read -r line; do
			grep -Fq -e "$line" "$work/plain" && continue
			over && return 1
			return 2
		done <observed.txt
		return 0
		;;
	stop)
		over && return 1
		last=$(sed -n 's/^repro: \([0-9][0-9]*\) > .*/\1/p' "$work/log" | tail -n 1)
		[ "${last:-0}" = "$step" ] || return 2
		grep -q "^repro: $step \.\$" "$work/log" && return 2
		return 0
		;;
	lines)
		grep -q "^repro: $step \.\$" "$work/log" || return 2
		shown >"$work/shown"
		while IFS= read -r line; do
			grep -Fqx -e "$line" "$work/shown" || return 1
		done <observed.txt
		while IFS= read -r line; do
			grep -Fqx -e "$line" "$work/shown" && return 1
		done <expected.txt
		return 0
		;;
	*)
		return 2
		;;
	esac
}

tell() {
	echo "log: $work/console.log"
	case $kind in
	lines)
		echo "step $step: $(sed -n "s/^repro: $step > //p" "$work/log" | head -n 1 | cut -c 1-200)"
		for name in expected observed; do
			[ ! -s $name.txt ] || sed "s/^/  $name when this was made: /" $name.txt | head -n 20 | cut -c 1-200
		done
		shown | sed 's/^/  now: /' | head -n 40 | cut -c 1-200
		;;
	esac
	case $1 in
	0) echo "$seen" ;;
	1) echo "$unseen" ;;
	*) echo 'cannot tell: the host did not come to where the failure shows, or it has no known sign' ;;
	esac
	exit "$1"
}

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
	# What a kernel prints shall do nothing to a terminal.
	tr -cd '\11\12\40-\176' <"$console" >"$work/log"
	judge
	found=$?
	if [ -n "$log" ] || [ $found -eq 0 ] || [ $attempt -ge "$loops" ]; then
		tell $found
	fi
done
