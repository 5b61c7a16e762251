# SPDX-License-Identifier: GPL-2.0-only
# What a step showed, line by line.
shown() {
	sed -n "s/^repro: $step < //p" "$work/log"
}

over() {
	grep -Fqx 'repro: over' "$work/log"
}

# Whether the failure is seen in $work/console.log: 0, 1, or 2
judge() {
	# What a kernel prints shall do nothing to a terminal.
	tr -cd '\11\12\40-\176' <"$work/console.log" >"$work/log"
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
