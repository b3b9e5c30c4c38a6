#!/usr/bin/env bash
# Process 1 of a test cluster, in pid, net, mount, UTS and IPC namespaces of its own, which are its login node too:
#   bundle.sh NODES CPUS GPUS NODE_SCRIPT DIRECTORY...
# Says "ready" when all nodes are idle. Ends with its standard input at any time, and with it everything in here.
set -euo pipefail
# The directory of the tests may be one that is hidden below.
cd /
nodes=$1 cpus=$2 gpus=$3 node_script=$4
shift 4
shared=("$@")
here=/run/cluster
export SLURM_CONF=$here/slurm.conf

# The table that mount(8) keeps beside the kernel's would be hidden and shown again.
mount() { command mount --no-mtab "$@"; }

# What is written where the machine has its own files is in memory, and ends with the namespaces. The directories
# given are seen through it: they are what the nodes share, as a cluster's file system is.
ground() {
  hostname login
  mount --make-rprivate /
  mount -t proc proc /proc
  mount -t tmpfs -o mode=0755 run /run
  mkdir -p $here/munge $here/state /run/next
  local index place
  for index in "${!shared[@]}"; do
    mkdir -p "$here/shared/$index"
    mount --bind "${shared[index]}" "$here/shared/$index"
  done
  for place in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o mode=1777 login $place; done
  for index in "${!shared[@]}"; do
    mkdir -p "${shared[index]}"
    mount --bind "$here/shared/$index" "${shared[index]}"
  done
}

network() {
  ip link set lo up
  ip link add br0 type bridge
  ip address add 198.51.100.254/24 dev br0
  ip link set br0 up
  printf '127.0.0.1 localhost\n198.51.100.254 login\n' > $here/hosts
  local number
  for ((number = 1; number <= nodes; number++)); do echo "198.51.100.$number node$number" >> $here/hosts; done
  mount --bind $here/hosts /etc/hosts
}

configuration() {
  cat > $SLURM_CONF << CONF
ClusterName=test
SlurmctldHost=login(198.51.100.254)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$here/munge/socket
CredType=cred/munge
StateSaveLocation=$here/state
SlurmctldPidFile=$here/slurmctld.pid
SlurmctldLogFile=$here/slurmctld.log
SlurmdPidFile=/run/slurmd.pid
SlurmdSpoolDir=/var/spool/slurmd
SlurmdLogFile=$here/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
TaskPluginParam=None
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait=5
ReturnToService=2
GresTypes=gpu
NodeName=node[1-$nodes] NodeAddr=198.51.100.[1-$nodes] CPUs=$cpus Gres=gpu:$gpus
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE
CONF
  # By default fences without data go along a tree, and a rank of a busy node is now and then told of the end of one
  # before all have come to it (Slurm 22.05): Open MPI's ranks die in MPI_Init of a message that is too early, or wait
  # for the data of ranks that are gone.
  echo PMIxCollFence=ring > $here/mpi.conf
  local number
  for ((number = 0; number < gpus; number++)); do mknod -m 0666 "$here/gpu$number" c 1 3; done
  echo "Name=gpu File=$here/gpu[0-$((gpus - 1))]" > $here/gres.conf
}

# munged is another user's, and asks that nobody else can write where its files are.
authentication() {
  head -c 1024 /dev/urandom > $here/munge/key
  chmod 0400 $here/munge/key
  chown -R munge: $here/munge
  setpriv --reuid munge --regid munge --clear-groups munged --num-threads 4 --group-update-time=-1 \
    --key-file $here/munge/key --socket $here/munge/socket --pid-file $here/munge/pid \
    --log-file $here/munge/log --seed-file $here/munge/seed
}

daemons() {
  slurmctld -D &> $here/slurmctld.out &
  # A node that finds no controller tries again after a second only.
  until (: 3<> /dev/tcp/198.51.100.254/6817) 2> /dev/null; do sleep 0.02; done
  local number
  for ((number = 1; number <= nodes; number++)); do
    unshare --net --uts --mount --ipc bash -c "$node_script" node "$number" "${shared[@]}" &> "$here/node$number.out" &
  done
  until [ "$(sinfo --noheader --Node --format %t | grep -cx idle)" = "$nodes" ]; do sleep 0.02; done
}

{
  ground
  network
  configuration
  authentication
  daemons
  echo ready
} < /dev/null &
# Nobody says anything at the other end; meanwhile the shell reaps what is left to process 1.
exec > /dev/null
read -r || true
