#!/usr/bin/env bash
# A node of a test cluster, in net, UTS, mount and IPC namespaces of its own: node.sh NUMBER DIRECTORY...
set -euo pipefail
# The directory of the tests may be one that is hidden below.
cd /
number=$1
shift
shared=("$@")
here=/run/cluster

mount() { command mount --no-mtab "$@"; }

ip link set lo up
ip link add eth0 type veth peer name "node$number" netns 1
ip address add "198.51.100.$number/24" dev eth0
ip link set eth0 up
nsenter --target 1 --net ip link set "node$number" master br0 up
hostname "node$number"

# As the login node: places of its own in memory, and what all share seen through them.
mount -t tmpfs -o mode=0755 run /run/next
mkdir /run/next/cluster
mount --rbind $here /run/next/cluster
mount --move /run/next /run
for place in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 node $place; done
mount -t tmpfs -o mode=0755 node /var/spool
for index in "${!shared[@]}"; do
  mkdir -p "${shared[index]}"
  mount --bind "$here/shared/$index" "${shared[index]}"
done
# Where libraries look for munged; a container does not see it.
mkdir /run/munge
ln -s $here/munge/socket /run/munge/munge.socket.2
# A sysfs shows the network devices of the namespace that mounted it.
mkdir /run/sys
mount -t sysfs sysfs /run/sys
mount --rbind /sys/fs/cgroup /run/sys/fs/cgroup
mount --move /run/sys /sys
rmdir /run/sys
exec slurmd -D -N "node$number"
