# SPDX-License-Identifier: GPL-2.0-only
die() {
	echo "run.sh: $*" >&2
	exit 2
}

boot() {
	# SANDBOX is an option and its value, or nothing. In the foreground: timeout makes a process group
	# of its own otherwise, in which Ctrl-C does not reach QEMU.
	timeout --foreground "$limit" "${QEMU:-qemu-system-aarch64}" $SANDBOX \
@ARGUMENTS@
}

# What is to be booted, or which log is to be judged instead.
image=Image log=
case $# in
0) ;;
1) image=$1 ;;
2) [ "$1" = -l ] || die "usage: sh run.sh [KERNEL | -l LOG]"; log=$2 ;;
*) die "usage: sh run.sh [KERNEL | -l LOG]" ;;
esac
for file in "$image" "$log"; do
	case $file in
	'' | Image) ;;
	*) [ -r "$file" ] || die "cannot read $file" ;;
	esac
done
case $image in
Image | /*) ;;
*) image=$PWD/$image ;;
esac
