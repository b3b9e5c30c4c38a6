"""The measurements of ci/bench, which prepares what they need: bench_pull.py WORK REGISTRY ROUNDS."""

import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

work, registry, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
IMAGES = ["debian", "layers", "small", "incompressible"]
WANTED = {"pipe": 0.6, "podman": 5, "steps": 15}
cores = len(os.sched_getaffinity(0))


def layers_of(image):
    layout = f"{work}/images/{image}"
    digest = json.load(open(f"{layout}/index.json"))["manifests"][0]["digest"]
    manifest = json.load(open(f"{layout}/blobs/" + digest.replace(":", "/")))
    return [f"{layout}/blobs/" + layer["digest"].replace(":", "/") for layer in manifest["layers"]]


def empty():
    subprocess.run(["umount", "-l", f"{work}/podman/root/overlay"], stderr=subprocess.DEVNULL, check=False)
    for path in (f"{work}/.local", f"{work}/podman", f"{work}/steps"):
        shutil.rmtree(path, ignore_errors=True)
    os.mkdir(f"{work}/steps")
    os.sync()


def commands(image):
    name = f"{registry}/{image}:1"
    podman = f"podman --root {work}/podman/root --runroot {work}/podman/run --storage-driver overlay"
    pipes = " && ".join(
        f"gzip -dc {layer} | tar2sqfs -f -q -c zstd -X level=1 -j {cores} {work}/steps/{number}.squashfs"
        for number, layer in enumerate(layers_of(image))
    )
    return {
        "sarus": f"sarus pull --quiet {name}",
        "pipe": pipes,
        "podman": f"{podman} pull --quiet --tls-verify=false {name}",
        "steps": f"skopeo --insecure-policy copy --quiet --src-tls-verify=false docker://{name} oci:{work}/steps/oci:x"
        f" && umoci unpack --image {work}/steps/oci:x {work}/steps/bundle"
        f" && mksquashfs {work}/steps/bundle/rootfs {work}/steps/image.squashfs -no-progress -quiet",
    }


def measure(command):
    """Seconds of wall time, seconds of CPU time, and the largest process's peak memory in MiB."""
    empty()
    begin = time.monotonic()
    log = open(f"{work}/log", "w+")
    process = subprocess.Popen(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    if status:
        log.seek(0)
        sys.exit(f"bench: {command[:200]} failed: {log.read()}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def floor(image):
    """CPU seconds of what no pull can leave away, and those of the gzip stream alone."""
    said = subprocess.run([f"{work}/bin/floor", *layers_of(image)], capture_output=True, text=True, check=True).stdout
    inflate, digest, compress = (float(word) for word in said.split())
    return max((inflate + digest + compress) / cores, inflate)


def median(runs, column):
    return statistics.median(run[column] for run in runs)


print("| image | sarus | CPU | peak | floor | sarus / floor | image size | sarus / pipe | podman / sarus | steps / sarus |")
print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
for image in IMAGES:
    runs = {}
    floors = []
    for _ in range(rounds):
        for name, command in commands(image).items():
            runs.setdefault(name, []).append(measure(command))
            if name == "sarus":
                (path,) = glob.glob(f"{work}/.local/share/sarus/images/v1/*/image.squashfs")
                size = os.path.getsize(path) / 1e6
            print(f"  {image} {name}: {runs[name][-1]}", file=sys.stderr)
        floors.append(floor(image))
    wall, cpu, peak = (median(runs["sarus"], column) for column in range(3))
    least = statistics.median(floors)
    ratios = [wall / median(runs["pipe"], 0), median(runs["podman"], 0) / wall, median(runs["steps"], 0) / wall]
    cpus = [cpu / median(runs["pipe"], 1), median(runs["podman"], 1) / cpu, median(runs["steps"], 1) / cpu]
    cells = " | ".join(f"{ratio:.2f} (CPU {spent:.2f})" for ratio, spent in zip(ratios, cpus))
    print(f"| {image} | {wall:.2f} s | {cpu:.2f} s | {peak:.0f} MiB | {least:.2f} s | {wall / least:.2f} | {size:.0f} MB | {cells} |", flush=True)
print(
    f"\nMedians of {rounds} rounds in turns, {cores} cores. Floor: inflating, SHA-256 and zstd level 1 of the layers, over all"
    "\ncores, and no less than inflating alone, which one thread does. Wanted: sarus / pipe at most"
    f" {WANTED['pipe']}, podman / sarus at least {WANTED['podman']}, steps / sarus at least {WANTED['steps']}."
)
