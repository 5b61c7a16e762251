#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
#   sh run.sh           boot Image.base and Image, which count: does Image cost what was not promised?
#   sh run.sh KERNEL    the same with another kernel's Image in the place of Image
#   sh run.sh -l LOG    print what a console's log says that the cost is, and no more
#
# Exit code: 0 the failure is seen, 1 it is not, 2 that could not be told. Without -l it needs
# qemu-system-aarch64, 7.2 or newer, and coreutils' timeout. QEMU='...' sets another program,
# SANDBOX= (empty) leaves its sandbox out where QEMU was built without. Instructions are counted
# under TCG: they are no time, and those of another version of QEMU may be others.
@SETTINGS@

@COMMON@

# What a console's log says the metric is: the slope of the line of least squares through all numbers
# of pages; of each the median of the passes from the third on. Fails if the log is not whole, or if
# the program says that a process of it gave up: the harness takes no number of such a boot either.
cost() {
	tr -cd '\11\12\40-\176' <"$1" | awk -v metric="$metric" '
	function value(name, i) {
		for (i = 5; i <= NF; i++)
			if (index($i, name "=") == 1)
				return substr($i, length(name) + 2) + 0
	}
	function point(series, x, y) {
		n[series]++
		sx[series] += x; sy[series] += y; sxx[series] += x * x; sxy[series] += x * y
	}
	function slope(series, spread) {
		spread = n[series] * sxx[series] - sx[series] * sx[series]
		if (!spread)
			exit 1
		return (n[series] * sxy[series] - sx[series] * sy[series]) / spread
	}
	$1 != "cost:" { next }
	{ lines++; last = $2; said = $4 }
	$4 == "pass" && value("pass") >= 2 {
		key = $5 " " value("pages")
		at = ++passes[key]
		for (; at > 1 && count[key, at - 1] > value("instructions"); at--) {
			count[key, at] = count[key, at - 1]
			units[key, at] = units[key, at - 1]
		}
		count[key, at] = value("instructions")
		units[key, at] = value("units")
		hits[key] += 0
	}
	$4 == "faults" && value("pass") == 2 { point("faults-access", value("pages"), value("exits")) }
	$4 == "failed" { failed = 1 }
	$4 == "calls" { hits[$5 " " value("pages")] += value("hits") }
	END {
		if (said != "end" || lines != last + 1 || failed)
			exit 1
		for (key in passes) {
			split(key, part, " ")
			middle = int((passes[key] + 1) / 2)
			point("cost-" part[1], units[key, middle], count[key, middle])
		}
		for (key in hits) {
			split(key, part, " ")
			point("calls-" part[1], part[2], hits[key])
		}
		if (metric == "cost-notifier") {
			calls = slope("calls-idle")
			if (!calls)
				exit 1
			found = (slope("cost-idle") - slope("cost-idle-bare")) / calls
		} else
			found = slope(metric)
		printf "%.4f\n", found
	}'
}

if [ -n "$log" ]; then
	cost "$log" || die "$log does not have all that a boot says"
	exit 0
fi
work=$(mktemp -d) || die "no folder for the consoles' logs"
cd "$(dirname "$0")" || exit 2
for program in timeout awk "${QEMU:-qemu-system-aarch64}"; do
	command -v "$program" >/dev/null || die "$program is missing"
done

# measured KERNEL CMDLINE LOG
measured() {
	echo "booting $1, up to $limit s ..." >&2
	image=$1 cmdline=$2
	boot </dev/null >"$3" 2>"$work/qemu.err"
	status=$?
	[ $status -eq 0 ] || { cat "$work/qemu.err" >&2; die "$1: QEMU ended with $status (124: its time was up)"; }
	cost "$3" || die "$1 gave up, did not come to its end, or does not show this: $3"
}

patched=$image
without=$(measured Image.base "$(cat cmdline.base)" "$work/base.log") || exit 2
with=$(measured "$patched" "$(cat cmdline)" "$work/patched.log") || exit 2
echo "$metric: $without without the series, $with with it ($unit)"
echo "logs: $work"
if awk -v without="$without" -v with="$with" -v least="$least" 'BEGIN { exit !(with - without > least) }'; then
	echo 'the failure is seen'
	exit 0
fi
echo 'the failure is not seen'
exit 1
