"""The measurements of ci/bench-start, which prepares what they need: bench_start.py WORK USER IMAGE ROUNDS CROWDS."""

import glob
import os
import pwd
import statistics
import subprocess
import sys
import threading
import time

work, user, image, rounds, crowds = sys.argv[1:]
account = pwd.getpwnam(user)
ROOT, USER = "root", "user"
BARE = {ROOT: ("tree-root", "state"), USER: ("tree-user", "state-user")}


def start(who, command, **more):
    home = os.path.join(work, who)
    ids = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if who == USER else {}
    env = {"PATH": f"{work}/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": home, "USER": who}
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, **more}
    return subprocess.Popen(command, env=env, cwd="/", **ids, **options)


def finish(process, command):
    said = process.communicate()[1]
    if process.returncode:
        sys.exit(f"bench-start: {command} ended with {process.returncode}: {said}")


def measure(who, command):
    begin = time.monotonic()
    finish(start(who, command), command)
    return (time.monotonic() - begin) * 1000


def sarus(runtime, *command):
    return ["sarus", "run", "--runtime", runtime, image, *command]


def bare(who, runtime, name):
    tree, state = (os.path.join(work, part) for part in BARE[who])
    return [runtime, "--root", state, "run", "-b", tree, name]


def bare_runtimes(who):
    # crun 1.8 refuses hybrid cgroups to users.
    return ["runc", "crun"] if who == ROOT else ["runc"]


def starts():
    times = {}

    def note(*key, command, who):
        times.setdefault(key, []).append(measure(who, command))

    tree = os.path.join(work, "tree-root", "rootfs")
    peers = {
        "ch-run": ["ch-run", tree, "--", "true"],
        "bwrap": ["bwrap", "--bind", tree, "/", "--dev", "/dev", "--proc", "/proc", "true"],
    }
    for _ in range(int(rounds)):
        for who in (ROOT, USER):
            for runtime in ("crun", "runc"):
                note(who, "first", runtime, command=sarus(runtime, "true"), who=who)
            for runtime in bare_runtimes(who):
                note(who, "bare", runtime, command=bare(who, runtime, "bench"), who=who)
            holder = start(who, sarus("crun", "sh", "-c", "echo; read x"), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            holder.stdout.readline()
            for runtime in ("crun", "runc"):
                note(who, "joining", runtime, command=sarus(runtime, "true"), who=who)
            holder.communicate(b"\n")
        for name, command in peers.items():
            note(ROOT, "peer", name, command=command, who=ROOT)
    podman(times)
    middle = {key: statistics.median(values) for key, values in times.items()}
    print("| start of `true` | ms | wanted |\n|---|---|---|")
    for key, value in sorted(middle.items()):
        print(f"| {' '.join(key)} | {value:.1f} | {wanted(key, middle)} |")


def podman(times):
    storage = ["--root", f"{work}/podman", "--runroot", f"{work}/podman-run", "--storage-driver", "overlay"]
    options = ["--runtime", "runc", "run", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
    command = ["podman", *storage, *options, "--network=host", "--tls-verify=false", "--rm", image, "true"]
    measure(ROOT, command)
    times[(ROOT, "peer", "podman")] = [measure(ROOT, command) for _ in range(5)]
    subprocess.run(["umount", "-l", f"{work}/podman/overlay"], check=False, stderr=subprocess.DEVNULL)


def wanted(key, middle):
    who, what, runtime = key
    value, runc = middle[key], middle[(who, "bare", "runc")]
    if what not in ("first", "joining"):
        return ""
    if who == USER:
        most = 25 if what == "first" else 8
        return f"runc {value - runc:+.1f} ms, at most +{most}"
    most, more = (1.35, 20) if what == "first" else (1.15, 6)
    crun = middle[(who, "bare", "crun")]
    podman_ratio = middle[(ROOT, "peer", "podman")] / value
    return f"{value / runc:.2f} × runc, at most {most}; crun {value - crun:+.1f} ms, at most +{more}; podman {podman_ratio:.1f} ×"


def carriers(who):
    """FUSE servers that live, and loop devices on the user's images."""
    found = 0
    for path in glob.glob("/proc/[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in open(path).read().splitlines() if ":" in line)
        except OSError:
            continue
        uid = account.pw_uid if who == USER else 0
        alive = "Z" not in lines["State"] and int(lines["Uid"].split()[0]) == uid
        found += alive and lines["Name"].strip() in ("sarus-fuse", "squashfuse_ll")
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        try:
            found += open(path).read().startswith(os.path.join(work, who) + "/")
        except OSError:
            pass
    return found


def crowd(who, commands):
    most, done = [0], threading.Event()

    def count():
        while not done.wait(0.02):
            most[0] = max(most[0], carriers(who))

    begin = time.monotonic()
    processes = [(start(who, command), command) for command in commands]
    counter = threading.Thread(target=count)
    counter.start()
    for process, command in processes:
        finish(process, command)
    wall = time.monotonic() - begin
    done.set()
    counter.join()
    return wall, most[0], carriers(who)


def crowd_table():
    print("\n| at once | wall, s | × bare (wanted 1.3) | servers and loop devices: most (wanted 1) | after (wanted 0) |\n|---|---|---|---|---|")
    for size in map(int, crowds.split()):
        for who in (ROOT, USER):
            for runtime in bare_runtimes(who):
                ours = [crowd(who, [sarus(runtime, "true")] * size) for _ in range(3)]
                theirs = [crowd(who, [bare(who, runtime, f"c{n}") for n in range(size)]) for _ in range(3)]
                wall, other = (statistics.median(run[0] for run in runs) for runs in (ours, theirs))
                most, after = max(run[1] for run in ours), max(run[2] for run in ours)
                print(f"| {size} as {who}, {runtime} | {wall:.2f} | {wall / other:.2f} | {most} | {after} |")


STEADY = {
    "import numpy": "python3 -c 'import numpy'",
    "import numpy, 16 at once": "seq 16 | xargs -P 16 -n 1 sh -c 'python3 -c \"import numpy\"'",
    "read all files, 16 at once": "find / -xdev -type f -print0 2> /dev/null | xargs -0 -P 16 -n 64 cat > /dev/null",
    "find /": "find / -xdev > /dev/null 2>&1",
}
# Times are taken inside, so that no start is in them: nanoseconds before and after, a line each.
SCRIPT = "while read line; do date +%s%N; eval \"$line\"; date +%s%N; done"


class Inside:
    def __init__(self, who, command):
        self.process = start(who, [*command, "bash", "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def time(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()
        before, after = (int(self.process.stdout.readline()) for _ in range(2))
        return (after - before) / 1e6


def steady_table():
    tree = os.path.join(work, "tree-root", "rootfs")
    places = {
        "tree": Inside(ROOT, ["chroot", tree]),
        "kernel": Inside(ROOT, sarus("crun")),
        "FUSE": Inside(USER, sarus("crun")),
    }
    print("\n| steady state | tree, ms | kernel × (wanted 1.1) | FUSE × (wanted 1.5) | cold: tree, ms | kernel × | FUSE × |\n|---|---|---|---|---|---|---|")
    for name, command in STEADY.items():
        cold = {}
        for place, inside in places.items():
            subprocess.run(["sh", "-c", "sync; echo 3 > /proc/sys/vm/drop_caches"], check=True)
            cold[place] = inside.time(command)
        warm = {place: [] for place in places}
        for inside in places.values():
            inside.time(command)
        for _ in range(9):
            for place, inside in places.items():
                warm[place].append(inside.time(command))
        middle = {place: statistics.median(values) for place, values in warm.items()}
        ratios = [values[place] / values["tree"] for values in (middle, cold) for place in ("kernel", "FUSE")]
        print(f"| {name} | {middle['tree']:.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} | {cold['tree']:.0f} | {ratios[2]:.2f} | {ratios[3]:.2f} |")
    for inside in places.values():
        inside.process.communicate()


os.closerange(3, 1024)
starts()
crowd_table()
steady_table()
