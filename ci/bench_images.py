"""Makes the images of ci/bench from a Debian image: bench_images.py LAYOUT DIRECTORY. The same ones each time."""

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tarfile

LAYERS = 30
SMALL_FILES = 100_000
TIME = 1_700_000_000
chance = random.Random(1)


class Layout:
    """An OCI image layout with one image, "latest"."""

    def __init__(self, path):
        self.path = path
        self.layers, self.diff_ids = [], []
        os.makedirs(f"{path}/blobs/sha256")

    def put(self, data):
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{self.path}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    def add_layer(self, tar):
        blob = self.put(gzip.compress(tar, 6, mtime=0))
        self.layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **blob})
        self.diff_ids.append("sha256:" + hashlib.sha256(tar).hexdigest())

    def finish(self):
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}}
        config["rootfs"] = {"type": "layers", "diff_ids": self.diff_ids}
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", **self.put(json.dumps(config).encode())}
        manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
        manifest |= {"config": config, "layers": self.layers}
        manifest = {"mediaType": manifest["mediaType"], **self.put(json.dumps(manifest).encode())}
        manifest["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
        for name, content in (
            ("index.json", {"schemaVersion": 2, "manifests": [manifest]}),
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ):
            with open(f"{self.path}/{name}", "w") as file:
                json.dump(content, file)


def archive(files):
    """A tar archive of (name, content)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), TIME
            tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def many_layers(source, path):
    """The files of an image dealt out to LAYERS layers, with some of each written again in the next."""
    parts = [io.BytesIO() for _ in range(LAYERS)]
    tars = [tarfile.open(fileobj=part, mode="w", format=tarfile.PAX_FORMAT) for part in parts]
    for layer in json.load(open(source_blob(source, manifest_of(source))))["layers"]:
        with tarfile.open(source_blob(source, layer["digest"])) as tar:
            for number, member in enumerate(tar):
                content = tar.extractfile(member).read() if member.isfile() or member.islnk() else None
                if member.islnk():
                    # tar2sqfs does not know the other layers, where the target may be.
                    member.type, member.linkname, member.size = tarfile.REGTYPE, "", len(content)
                # Directories come first, in all.
                places = range(LAYERS) if member.isdir() else {number % LAYERS, (number + number % 7 // 6) % LAYERS}
                for place in places:
                    tars[place].addfile(member, io.BytesIO(content) if content is not None else None)
    layout = Layout(path)
    for tar, part in zip(tars, parts):
        tar.close()
        layout.add_layer(part.getvalue())
    layout.finish()


def manifest_of(layout):
    return json.load(open(f"{layout}/index.json"))["manifests"][0]["digest"]


def source_blob(layout, digest):
    return f"{layout}/blobs/" + digest.replace(":", "/")


def small_files(path):
    words = [chance.randbytes(chance.randint(1, 6)).hex() for _ in range(4000)]

    def text():
        return " ".join(chance.choices(words, k=chance.choice((0, 20, 80, 300, 800)))).encode()

    layout = Layout(path)
    layout.add_layer(archive((f"package/d{n % 500}/module{n}.py", text()) for n in range(SMALL_FILES)))
    layout.finish()


def incompressible(path):
    layout = Layout(path)
    layout.add_layer(archive((f"data/part{n}", chance.randbytes(10_000_000)) for n in range(47)))
    layout.finish()


source, images = sys.argv[1:]
os.makedirs(images)
shutil.copytree(source, f"{images}/debian")
many_layers(source, f"{images}/layers")
small_files(f"{images}/small")
incompressible(f"{images}/incompressible")
