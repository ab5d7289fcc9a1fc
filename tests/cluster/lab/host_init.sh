#!/bin/bash
# The first process of a host: makes its root and its network, and then reaps what is orphaned.
# usage: host_init.sh NAME ADDRESS STATE GATEWAY ENVIRONMENT VISIBLE...
#   STATE: the laboratory's folder; ENVIRONMENT: the Python environment of the machines' image;
#   VISIBLE: folders that lie under what is private to a host (/root, /tmp, ...) and belong to the image as well
set -euo pipefail
name=$1 address=$2 state=$3 gateway=$4 environment=$5
shift 5

hostname "$name"
mount --make-rprivate /
disk=$state/hosts/$name root=$state/hosts/$name/root
mkdir -p "$disk"
mount -t tmpfs -o size=4g tmpfs "$disk"
mkdir -p "$disk"/{up,work,root}

# The machine's image: this machine's own root, copy on write into memory; private are home, /tmp, /run and the devices.
mount -t overlay overlay -o "lowerdir=/,upperdir=$disk/up,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mkdir "$root/dev/shm"
mount -t tmpfs -o size=4g tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=700 tmpfs "$root/root"
for folder in "$@"; do
    mkdir -p "$root$folder"
    mount --rbind "$folder" "$root$folder"
    mount -o remount,bind,ro "$root$folder"
done
mkdir -p "$root/mnt/shared" # what an NFS server would give
mount --bind "$state/shared" "$root/mnt/shared"

ln -s "$environment" "$root/root/rlprune-env"
echo "$name" > "$root/etc/hostname"
: > "$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$name" > "$root/etc/hosts"

for _ in $(seq 200); do # until the laboratory has plugged the cable in
    ip link show eth0 > /dev/null 2>&1 && break
    sleep 0.05
done
ip link set lo up
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "$gateway"

touch "$state/$name.ready"
while :; do
    sleep 3600 &
    wait -n || true
done
