#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-only
# First process of an emulated host: mount what the checks read, bring the
# network up, start the SSH server, say so on the console.
/bin/busybox --install -s /bin
export PATH=/usr/bin:/usr/sbin:/bin HOME=/root
exec </dev/console >/dev/console 2>&1

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm /dev/hugepages
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t hugetlbfs hugetlbfs /dev/hugepages
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
echo '+memory' >/sys/fs/cgroup/cgroup.subtree_control

hostname "$(sed -n 's/.*kvm_harness\.host=\([^ ]*\).*/\1/p' /proc/cmdline)"
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up

# A bare run, for the benchmark: the recorded commands of a cell, then off.
if grep -q 'kvm_harness\.replay' /proc/cmdline; then
	sh /replay/run.sh
	echo "kvm-harness: replay is over"
	poweroff -f
fi

# Only the key that was made with the image opens this host.
chmod 700 /root /root/.ssh
dropbear -s -r /etc/dropbear/host_key -p 22 -P /run/dropbear.pid
echo "kvm-harness: host is up"

# PID 1 stays to reap; the machine is switched off from outside.
while :; do sleep 1000; done
