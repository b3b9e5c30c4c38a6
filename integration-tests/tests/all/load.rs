//! `sarus load` and `pull` of what real tools wrote, compared with `umoci unpack`; SIF files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sarus_integration_tests::{Dialect, Image, Packed, Packing, Session, Tar, Who, debian};
use serde_json::{Value, json};

use crate::convert::{LIST, as_root, differences, list_squashfs};

/// Directories that images were mounted on.
static MOUNTS: AtomicU32 = AtomicU32::new(0);

/// An image as an OCI layout, from which tools make archives, and its tree as umoci unpacks it.
struct Original {
    session: Session,
    digest: String,
    tree: String,
}

impl Original {
    fn new(image: &Packed) -> Self {
        let session = Session::new(Who::User);
        let below = |name: &str| session.directory().join(name).to_str().unwrap().to_owned();
        let (layout, bundle) = (below("layout"), below("bundle"));
        image.write_layout(layout.as_ref());
        as_root(&["umoci", "unpack", "--image", &format!("{layout}:latest"), &bundle]);
        let tree = as_root(&[LIST, &format!("{bundle}/rootfs")]);
        Self { session, digest: image.digest(), tree }
    }

    fn path(&self, name: &str) -> String {
        self.session.directory().join(name).to_str().unwrap().to_owned()
    }

    /// Skopeo's copy of the layout to another transport; returns the file.
    fn copy(&self, transport: &str, file: &str, suffix: &str) -> String {
        let path = self.path(file);
        let to = format!("{transport}:{path}{suffix}");
        as_root(&[
            "skopeo",
            "copy",
            "--quiet",
            &format!("oci:{}:latest", self.path("layout")),
            &to,
        ]);
        path
    }

    /// `sarus load WORDS`; returns the first name and the digest that it printed.
    fn load(&self, words: &[&str]) -> (String, String) {
        let output = self.session.sarus(["load"]).args(words).run();
        let said = output.ok().to_owned();
        let (name, digest) = said.lines().next().unwrap().split_once("  ").unwrap();
        (name.to_owned(), digest.to_owned())
    }

    /// Asserts that the image of that name has the tree that umoci unpacked.
    fn compare(&self, name: &str) {
        let exported = self.session.home().join("image.squashfs");
        self.session.sarus(["export", "--force", name]).args([&exported]).run().ok();
        let number = MOUNTS.fetch_add(1, Ordering::Relaxed);
        let at = self.path(&format!("mounted-{number}"));
        let ours = list_squashfs(exported.to_str().unwrap(), &at);
        let differences = differences(&ours, &self.tree);
        assert!(differences.is_empty(), "{name}: - umoci, + sarus\n{differences}");
    }
}

/// Layers with what makes archives differ: whiteouts, links, owners, capabilities, two packings.
fn torture() -> Packed {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let base = Tar::new()
        .dir("d")
        .owner(5, 6)
        .file("d/one", "1")
        .hard_link("d/two", "d/one")
        .symlink("link", "d")
        .file("ping", "x")
        .mode(0o4755)
        .xattr("security.capability", &capability)
        .dir("gone")
        .file("gone/x", "2")
        .fifo("pipe")
        .device("null", b'c', 1, 3);
    let upper = Tar::new().whiteout("gone").file("link/three", "3").hard_link("four", "d/two");
    Image::new()
        .layer(&base)
        .packed_layer(&upper, Packing::Plain, Dialect::Oci)
        .layer(&Tar::new().dir("d").mode(0o700).opaque("gone"))
        .config(json!({"Env": ["A=b"], "Cmd": ["/x"]}))
        .pack()
}

#[test]
fn archives_that_skopeo_wrote_load_as_umoci_unpacks_them() {
    let original = Original::new(&torture());
    let docker = original.copy("docker-archive", "docker.tar", ":example.org/app:1");
    let oci = original.copy("oci-archive", "oci.tar", ":v2");
    let (name, made) = original.load(&[&docker]);
    assert_eq!(name, "example.org/app:1");
    original.compare(&name);
    // Whatever packs it, it is the same image.
    as_root(&["sh", "-ec", "gzip -k \"$1\"; zstd -q \"$1\"", "sh", &docker]);
    for file in [format!("{docker}.gz"), format!("{docker}.zst")] {
        assert_eq!(original.load(&["-i", &file]), (name.clone(), made.clone()), "{file}");
    }
    let (name, digest) = original.load(&[&oci]);
    // Skopeo compresses what is not, so that the manifest in the archive is another.
    let index: Value =
        serde_json::from_str(&as_root(&["tar", "-xOf", &oci, "index.json"])).unwrap();
    let kept = index["manifests"][0]["digest"].as_str().unwrap();
    assert_eq!((name.as_str(), digest.as_str()), ("localhost/oci:v2", kept));
    original.compare(&name);
    let (_, digest) = original.load(&["--source-format", "docker-archive", &docker, "named"]);
    assert_eq!(digest, made);
    original.compare("named");
    let inspected = original.session.sarus(["inspect", "named"]).run();
    let records: Vec<Value> = serde_json::from_str(inspected.ok()).unwrap();
    assert_eq!(records[0]["config"]["Env"], json!(["A=b"]));
}

#[test]
fn a_layout_of_umoci_is_pulled_by_its_transport() {
    let original = Original::new(&torture());
    let location = format!("oci:{}:latest", original.path("layout"));
    let pulled = original.session.sarus(["pull", "--quiet", &location]).run();
    assert_eq!(pulled.ok().trim(), original.digest);
    original.compare("localhost/layout:latest");
    let missing = format!("oci:{}:other", original.path("layout"));
    let failed = original.session.sarus(["pull", &missing]).run();
    failed.explains(125, &["no image `other`", "it has `latest`"]);
}

#[test]
fn an_archive_from_a_pipe_loads_as_one_from_a_file() {
    let original = Original::new(&torture());
    let docker = original.copy("docker-archive", "docker.tar", ":app:1");
    let bytes = fs_err::read(&docker).unwrap();
    for words in [&["load"][..], &["load", "-"], &["load", "-i", "-", "piped"]] {
        let output = original.session.sarus(words).input(&bytes).run();
        assert!(output.ok().contains("sha256:"), "{output}");
    }
    // A shell's pipe in the place of a file has a path that leads to no other.
    let substitution = ["bash", "-c", r#"exec "$@" <(cat "$0") named"#, &docker];
    original.session.sarus(["load"]).under(substitution).run().ok();
    original.compare("named");
    original.compare("piped");
    let none = original.session.sarus(["load"]).run();
    none.explains(125, &["standard input", "it is empty"]);
}

#[test]
fn a_root_file_system_is_imported_as_it_is() {
    let original = Original::new(&torture());
    let rootfs = original.path("bundle/rootfs");
    let file = original.path("Root FS.tar.gz");
    let words = ["tar", "--xattrs", "--xattrs-include=*", "-C", &rootfs, "-czf", &file, "."];
    as_root(&words);
    let (name, _) = original.load(&[&file]);
    assert_eq!(name, "localhost/root-fs:latest");
    original.compare(&name);
}

#[test]
fn what_podman_and_buildah_save_and_keep_is_loaded() {
    let original = Original::new(&torture());
    let storage = original.path("storage.conf");
    let (root, run) = (original.path("root"), original.path("run"));
    let text =
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{root}\"\nrunroot = \"{run}\"\n");
    fs_err::write(&storage, text).unwrap();
    let with = |words: &[&str]| {
        let setting = format!("CONTAINERS_STORAGE_CONF={storage}");
        as_root(&[&["env", &setting], words].concat())
    };
    let from = format!("oci:{}:latest", original.path("layout"));
    with(&["skopeo", "copy", "--quiet", &from, "containers-storage:localhost/kept:1"]);
    let mut digests = Vec::new();
    for (format, file) in
        [("docker-archive", "podman-docker.tar"), ("oci-archive", "podman-oci.tar")]
    {
        let file = original.path(file);
        with(&["podman", "save", "--quiet", "--format", format, "-o", &file, "localhost/kept:1"]);
        let (name, digest) = original.load(&[&file]);
        assert_eq!(name, "localhost/kept:1", "{format}");
        original.compare(&name);
        digests.push(digest);
    }
    let file = original.path("buildah.tar");
    with(&[
        "buildah",
        "push",
        "--quiet",
        "localhost/kept:1",
        &format!("docker-archive:{file}:built:1"),
    ]);
    let (name, digest) = original.load(&[&file]);
    assert_eq!((name.as_str(), &digest), ("docker.io/library/built:1", &digests[0]));
    original.compare(&name);
    // The storage itself, as root, since it is root's.
    let pulled = Session::new(Who::Root);
    let output = pulled
        .sarus(["pull", "--quiet", "containers-storage:localhost/kept:1"])
        .env("CONTAINERS_STORAGE_CONF", &storage)
        .run();
    assert_eq!(output.ok().trim(), digests[0]);
    let failed = pulled
        .sarus(["pull", "containers-storage:localhost/none:1"])
        .env("CONTAINERS_STORAGE_CONF", &storage)
        .run();
    failed.explains(125, &["cannot read `containers-storage:localhost/none:1`"]);
    let without = pulled
        .sarus(["pull", "containers-storage:localhost/kept:1"])
        .env("PATH", "/nonexistent")
        .run();
    without.explains(125, &["none of `skopeo`, `podman` and `buildah` is installed"]);
}

/// A SIF file of a tree, which `mksquashfs` packs with gzip, as Singularity does, and `siftool`
/// puts beside a definition file.
fn sif_of(tree: &str, directory: &Path) -> PathBuf {
    let below = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let (image, sif, definition) =
        (below("tree.squashfs"), below("image.sif"), below("recipe.def"));
    let words =
        ["-noappend", "-no-progress", "-quiet", "-comp", "gzip", "-Xcompression-level", "1"];
    as_root(&[&["mksquashfs", tree, &image], &words[..]].concat());
    fs_err::write(&definition, "bootstrap: docker\nfrom: debian\n").unwrap();
    as_root(&["siftool", "new", &sif]);
    as_root(&["siftool", "add", "--datatype", "1", "--groupid", "1", &sif, &definition]);
    let architecture = if cfg!(target_arch = "x86_64") { "2" } else { "4" };
    let partition = ["--datatype", "4", "--parttype", "2", "--partfs", "1", "--groupid", "1"];
    let words = ["--partarch", architecture, &sif, &image];
    as_root(&[&["siftool", "add"], &partition[..], &words[..]].concat());
    as_root(&["chmod", "644", &sif]);
    PathBuf::from(sif)
}

#[test]
fn a_debian_based_sif_file_loads_as_umoci_unpacks_its_image() {
    let original = Original::new(&debian());
    let sif = sif_of(&original.path("bundle/rootfs"), original.session.directory());
    let (name, _) = original.load(&[sif.to_str().unwrap()]);
    assert_eq!(name, "localhost/image:latest");
    original.compare(&name);
    let run = original.session.sarus(["run", &name, "cat", "/etc/os-release"]).run();
    assert!(run.ok().contains("Debian"), "{run}");
}

#[test]
fn a_sif_file_runs_by_its_path_and_for_root_too_without_the_kernel_reading_it() {
    for (who, unpacked) in [(Who::User, false), (Who::Root, false), (Who::User, true)] {
        let session = Session::new(who);
        let below = |name: &str| session.directory().join(name).to_str().unwrap().to_owned();
        let (layout, bundle) = (below("layout"), below("bundle"));
        Image::busybox().pack().write_layout(layout.as_ref());
        as_root(&["umoci", "unpack", "--image", &format!("{layout}:latest"), &bundle]);
        let scripts = format!("{bundle}/rootfs/.singularity.d");
        fs_err::create_dir_all(format!("{scripts}/env")).unwrap();
        let environment = "export PATH=\"/bin\"\nexport FROM_SIF=\"${FROM_SIF:-\"a b\"}\"\n";
        fs_err::write(format!("{scripts}/env/10-docker2singularity.sh"), environment).unwrap();
        fs_err::write(format!("{scripts}/runscript"), "#!/bin/sh\necho ran $FROM_SIF\n").unwrap();
        as_root(&["chmod", "755", &format!("{scripts}/runscript")]);
        let sif = sif_of(&format!("{bundle}/rootfs"), session.directory());
        if unpacked {
            session.configure("sarus.json", r#"{"imageMount": "unpack"}"#);
        }
        let script = "cat /etc/os-release; echo >/new; cat /proc/mounts";
        let run = session.sarus(["--verbose", "run"]).args([&sif]).args(["sh", "-c", script]).run();
        assert!(run.ok().contains("ID=busybox"), "{run}");
        assert!(!run.ok().contains("/dev/loop"), "the kernel reads what nobody vouched for: {run}");
        let want = if unpacked { "mode: rootless" } else { "the image is mounted by FUSE" };
        assert!(run.stderr.contains(want), "{run}");
        let default = session.sarus(["run"]).args([&sif]).run();
        assert_eq!(default.ok(), "ran a b\n");
    }
}

#[test]
fn a_load_that_fails_leaves_nothing_and_one_that_is_killed_leaves_a_store_that_works() {
    let original = Original::new(&torture());
    let docker = original.copy("docker-archive", "docker.tar", ":app:1");
    let mut bytes = fs_err::read(&docker).unwrap();
    bytes[700] ^= 1; // In the first header of the first layer.
    original.session.write("altered.tar", &bytes);
    let failed = original.session.sarus(["load", "altered.tar"]).run();
    failed.explains(125, &["expected digest"]);
    let root = Tar::new().file("big", "a".repeat(8 << 20)).bytes();
    let mut loading = original.session.sarus(["load", "-", "killed"]).keep_input().start();
    // More than pipe and buffers hold: when it is taken, the conversion has begun.
    loading.write(std::str::from_utf8(&root[..root.len() - 2048]).unwrap());
    loading.signal(rustix::process::Signal::KILL);
    loading.finish();
    let output = original.session.sarus(["images", "--format", "json"]).run();
    assert_eq!(output.ok().trim(), "[]");
    let store = original.session.home().join(".local/share/sarus");
    let found = original.session.program(["find"]).args([&store]).args(["-type", "f"]).run();
    assert_eq!(found.ok(), "");
    original.load(&[&docker]);
    original.compare("app:1");
}

#[test]
fn the_signature_policy_decides_on_files_too() {
    let session = Session::new(Who::User);
    let tar = session.directory().join("root.tar");
    fs_err::write(&tar, Tar::new().file("a", "b").bytes()).unwrap();
    let policy = |docker: &str| {
        let accept = json!([{"type": "insecureAcceptAnything"}]);
        let reject = json!({"": [{"type": "reject"}]});
        let text = json!({"default": accept, "transports": {docker: reject}});
        session.write(".config/containers/policy.json", text.to_string());
    };
    policy("tarball");
    let refused = session.sarus(["load"]).args([&tar]).args(["named"]).run();
    refused.explains(125, &["policy.json", "tarball", "reject"]);
    assert_eq!(session.sarus(["images", "-q"]).run().ok(), "", "nothing is stored");
    policy("oci");
    session.sarus(["load"]).args([&tar]).args(["named"]).run().ok();
    let inspected = session.sarus(["inspect", "named"]).run();
    assert!(inspected.ok().contains("insecureAcceptAnything"), "{inspected}");
}
