#!/bin/bash
# PID 1 of the User Mode Linux that boot.py starts: makes an ordinary machine of it, runs one command
# and powers off. Its root is the host's file tree, read-only; what the command may write is a tmpfs
# (hostfs has no unix sockets either) and the folders that the caller named.
set -eu

power_off() {
    echo o >/proc/sysrq-trigger
    sleep 60 # PID 1 must not end before the kernel has
}
trap power_off EXIT

job=${0%/*}
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/job
mount -t hostfs -o "$job" job /run/job
exec >>/run/job/setup 2>&1 </dev/null

mkdir -p /dev/pts /dev/shm
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -sfn /proc/self/fd /dev/fd
ln -sfn /proc/self/fd/0 /dev/stdin
ln -sfn /proc/self/fd/1 /dev/stdout
ln -sfn /proc/self/fd/2 /dev/stderr

# What boot.py decided for this job.
modules=() writable=() checkout='' soft_files='' hard_files='' is_init=''
# shellcheck source=/dev/null
. /run/job/settings
for module in "${modules[@]}"; do
    insmod "$module"
done
chmod 666 /dev/vsock
ip link set lo up
ulimit -Hn "$hard_files"
ulimit -Sn "$soft_files"

# A checkout below /tmp would be hidden by the tmpfs: hostfs reaches it by its name on the host.
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
mkdir -p "$checkout"
mount -t hostfs -o "ro,$checkout" checkout "$checkout"
for folder in "${writable[@]}"; do
    mount -t hostfs -o "$folder" writable "$folder"
done

cd "$checkout"
if [[ $is_init ]]; then
    trap - EXIT
    exec bash /run/job/command >>/run/job/output 2>&1
fi
status=0
bash /run/job/command >>/run/job/output 2>&1 || status=$?
echo "$status" >/run/job/status
