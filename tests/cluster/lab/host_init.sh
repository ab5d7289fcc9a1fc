#!/bin/bash
# The first process of a host: makes its root and its network, lets people in, and then reaps what is orphaned.
# usage: host_init.sh NAME ADDRESS STATE GATEWAY ENVIRONMENT SHARED VISIBLE...
#   STATE: the laboratory's folder; ENVIRONMENT: the Python environment of the machines' image;
#   SHARED: where the folder that hosts share is to be seen, or empty;
#   VISIBLE: folders that lie under what is private to a host (/root, /tmp, ...) and belong to the image as well
set -euo pipefail
name=$1 address=$2 state=$3 gateway=$4 environment=$5 shared=$6
shift 6

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
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts" # `ray up` asks for terminals
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o size=4g tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=700 tmpfs "$root/root"
for folder in "$@"; do
    mkdir -p "$root$folder"
    mount --rbind "$folder" "$root$folder"
    mount -o remount,bind,ro "$root$folder"
done
if [ -n "$shared" ]; then # what an NFS server would give
    mkdir -p "$root$shared"
    mount --bind "$state/shared" "$root$shared"
fi

# The home folder of the image: the shell's files, the Python environment, the keys, and what the laboratory adds.
cp /etc/skel/.bashrc /etc/skel/.profile "$root/root/"
cat >> "$root/root/.bashrc" << 'EOF'
# All hosts share two cores with others: no threads that spin, no processes ahead of the work, nobody first.
export OMP_WAIT_POLICY=PASSIVE RAY_prestart_worker_first_driver=0 RAY_enable_worker_prestart=0 RAY_worker_niceness=0
EOF
cp -R "$state/home/." "$root/root/"
chmod 700 "$root/root/.ssh"
ln -s "$environment" "$root/root/rlprune-env"
ssh-keygen -q -t ed25519 -N '' -f "$root/etc/ssh/laboratory_host_key" # a machine is not the one before it
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
ip route add unreachable 169.254.169.254 # EC2's metadata service: answers at once there, and here it says no at once

mkdir -p "$root/run/sshd"
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    chroot "$root" /usr/sbin/sshd -D -e -f /dev/null -o HostKey=/etc/ssh/laboratory_host_key \
    -o "ListenAddress=$address" -o UsePAM=no -o PermitRootLogin=prohibit-password -o PasswordAuthentication=no \
    -o UseDNS=no -o PidFile=none -o StrictModes=no -o MaxStartups=100 -o MaxSessions=100 -o PrintMotd=no &

touch "$state/$name.ready"
while :; do
    sleep 3600 &
    wait -n || true
done
