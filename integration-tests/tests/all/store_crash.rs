//! A power cut at any point of a command that writes: the store shows the old state or the new,
//! and each image that it lists is whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sarus_integration_tests::{
    Image, Packed, Recorded, Registry, Session, Spared, Tar, Tree, Who, restore, sha256,
};
use serde_json::Value;

/// The system calls that change files, and those that say which file is meant.
const CALLS: &str = "trace=openat,close,fcntl,lseek,write,pwrite64,writev,pwritev,ftruncate,\
                     truncate,fallocate,copy_file_range,sendfile,fsync,fdatasync,mkdir,mkdirat,\
                     rename,renameat,renameat2,link,linkat,symlink,unlink,unlinkat,rmdir";

const SPARED: [Spared; 5] =
    [Spared::All, Spared::Directories, Spared::Files, Spared::AllButMoves, Spared::Nothing];

struct Ground {
    session: Session,
    registry: Registry,
}

/// Names and the images that they mean.
type Names = BTreeSet<(String, String)>;

impl Ground {
    /// A store with one image, `other:1`.
    fn new() -> Self {
        let registry = Registry::start();
        let session = Session::new(Who::Root);
        session.trust(&[registry.host()]);
        let ground = Self { session, registry };
        let other = ground.push("other:1", "other");
        ground.session.sarus(["pull", "--quiet", &other]).run().ok();
        ground
    }

    fn push(&self, name: &str, content: &str) -> String {
        self.registry.push(name, &image(content))
    }

    fn store(&self) -> PathBuf {
        self.session.home().join(".local/share/sarus")
    }

    /// Runs a command under `strace`, then asserts of each state that a power cut may leave that
    /// it is the one before or the one after. Returns how many
    /// changes the command made.
    fn check(&self, words: &[&str]) -> usize {
        let store = self.store();
        let old = self.names(&store);
        let recorded = Recorded::before(&store);
        let trace = self.session.home().join("trace");
        let strace = ["strace", "-f", "-qq", "-xx", "-s", "1000000", "-e", CALLS, "-o"];
        let command = self.session.sarus(words).under(strace).under([&trace]);
        command.run().ok();
        let new = self.names(&store);
        assert_ne!(old, new, "the command did nothing");
        let trace = fs_err::read_to_string(trace).unwrap();
        for call in [" writev(", " mkdirat(", " linkat(", " copy_file_range(", " sendfile("] {
            let used = trace.lines().any(|line| {
                line.contains(call) && line.contains(&hex(&store)) && !line.contains(" = -1 ")
            });
            assert!(!used, "the model does not know{call}");
        }
        let recorded = recorded.follow(&store, &trace);
        let last = recorded.steps();
        let whole = recorded.cut(last, Spared::All);
        assert_eq!(self.names(&self.restored(&whole, "last")), new, "the model is right");

        let mut seen: BTreeSet<String> = BTreeSet::new();
        for step in 0..=last {
            for spared in SPARED {
                let tree = recorded.cut(step, spared);
                // Of states that differ in temporaries only, one is looked at.
                let shown = tree
                    .iter()
                    .filter(|(path, _)| path.starts_with(b"images") || path.starts_with(b"names"));
                let shown: Vec<_> = shown.collect();
                if !seen.insert(sha256(format!("{shown:?}").as_bytes())) {
                    continue;
                }
                let place = self.restored(&tree, &format!("{step}-{spared:?}"));
                let names = self.names(&place);
                let is_known = names == old || names == new;
                assert!(is_known, "after {step} of {last} changes, {spared:?}: {names:?}");
                fs_err::remove_dir_all(place.parent().unwrap()).unwrap();
            }
        }
        let durable = self.restored(&recorded.cut(last, Spared::Nothing), "durable");
        assert_eq!(self.names(&durable), new, "what the command said it had done lasts");
        last
    }

    fn restored(&self, tree: &Tree, name: &str) -> PathBuf {
        let home = self.session.home().join(name);
        fs_err::create_dir(&home).unwrap();
        restore(tree, &home.join("sarus"));
        home.join("sarus")
    }

    /// The names that a store lists, each of whose images is looked at.
    fn names(&self, store: &Path) -> Names {
        let list = self.session.sarus(["images", "--format", "json"]);
        let output = list.env("XDG_DATA_HOME", store.parent().unwrap()).run();
        assert!(!output.stderr.contains("warning"), "damage: {output}");
        let lines: Vec<Value> = serde_json::from_str(output.ok()).unwrap();
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        for line in &lines {
            let digest = text(line, "digest").replace(':', "-");
            let directory = store.join("images/v1").join(digest);
            let json = fs_err::read(directory.join("image.json")).unwrap();
            let metadata: Value = serde_json::from_slice(&json).unwrap();
            let squashfs = fs_err::read(directory.join("image.squashfs")).unwrap();
            assert_eq!(metadata["conversion"]["squashfsDigest"], sha256(&squashfs));
        }
        let named = lines.iter().filter(|line| line["tag"] != Value::Null);
        named.map(|line| (text(line, "repository"), text(line, "digest"))).collect()
    }
}

fn image(content: &str) -> Packed {
    Image::new().layer(&Tar::new().file("content", content)).pack()
}

fn hex(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

#[test]
fn a_power_cut_during_a_pull_leaves_the_old_state_or_the_new() {
    let ground = Ground::new();
    let app = ground.push("app:1", "app");
    assert!(ground.check(&["pull", "--quiet", &app]) > 20);
}

#[test]
fn a_power_cut_while_a_name_moves_leaves_the_old_image_or_the_new() {
    let ground = Ground::new();
    let app = ground.push("app:1", "old");
    ground.session.sarus(["pull", "--quiet", &app]).run().ok();
    ground.push("app:1", "new");
    assert!(ground.check(&["pull", "--quiet", &app]) > 20);
}

#[test]
fn a_power_cut_during_a_removal_leaves_the_image_or_none() {
    for words in [&["rmi"][..], &["rmi", "--force"]] {
        let ground = Ground::new();
        let other = format!("{}/other:1", ground.registry.host());
        assert!(ground.check(&[words, &[&other]].concat()) > 1, "{words:?}");
    }
}
