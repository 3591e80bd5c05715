# Makes a root filesystem of a tree of Debian's packages, in a mount namespace of
# its own, and keeps it until standard input ends.
# $1: the tree  $2: the place's folder  $3: a static busybox
set -e
new=$2/machine
mount -t tmpfs -o mode=755 machine "$new"
cd "$new"
mkdir -p usr etc run tmp var/lib proc sys dev root old ".$2"
mount --bind "$1/usr" usr
mount -o remount,bind,ro usr
# Debian's packages before trixie put files beside usr, too.
for dir in bin sbin lib lib64; do
	if [ -d "$1/$dir" ] && [ ! -L "$1/$dir" ]; then
		mkdir "$dir"
		mount --bind "$1/$dir" "$dir"
	else
		ln -s "usr/$dir" "$dir"
	fi
done
echo 'root:x:0:0:root:/root:/bin/sh' >etc/passwd
echo 'root:x:0:' >etc/group
echo '127.0.0.1 localhost' >etc/hosts
: >etc/resolv.conf
mount --rbind /proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount --bind "$2/run" run
mount --bind "$2" ".$2"
cp "$3" busybox
pivot_root . old
/busybox umount -l /old
# Where shims of containerd before 2.3 put their sockets.
/busybox mkdir -p /run/containerd/s
/busybox mount --bind "$2/s" /run/containerd/s
echo ready
while read -r _; do :; done
