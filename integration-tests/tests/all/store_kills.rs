//! Kills at random times: whatever was interrupted, each image listed is whole and runs, and
//! nothing but the blob cache is left after the next command.
//!
//! `SARUS_TEST_KILLS` says how many processes are killed (40 without it), `SARUS_TEST_SEED` how
//! the times are chosen; a failure names the seed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sarus_integration_tests::{Image, Invocation, Packed, Registry, Session, Who, sha256};
use serde_json::Value;

use crate::convert::as_root;
use crate::store_shared::image_on;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// xorshift: good enough to choose times.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn of(&mut self, time: Duration) -> Duration {
        time * u32::try_from(self.below(1000)).unwrap() / 1000
    }
}

/// Number of choices of [`Ground::command`].
const COMMANDS: u64 = 36;

struct Ground {
    session: Session,
    registry: Registry,
    images: Vec<(String, Packed)>,
}

impl Ground {
    fn new() -> Self {
        let registry = Registry::start();
        let session = Session::new(Who::User);
        session.trust(&[registry.host()]);
        // Layers are shared, so that pulls of different images meet too.
        let images = [&[1, 2, 3][..], &[4, 1], &[5]];
        let images = images.map(|seeds| image_on(Image::busybox(), seeds));
        let images = (0..).zip(images);
        let images = images.map(|(n, image)| (registry.push(&format!("app:{n}"), &image), image));
        let images: Vec<_> = images.collect();
        let ground = Self { session, registry, images };
        for (n, (_, image)) in (0..).zip(&ground.images) {
            image.write_layout(&ground.layout(n));
            let from = format!("oci:{}:latest", ground.layout(n).display());
            let to = format!("docker-archive:{}", ground.archive(n).display());
            as_root(&["skopeo", "copy", "--quiet", &from, &to]);
        }
        ground
    }

    /// An image as a directory.
    fn layout(&self, number: usize) -> PathBuf {
        self.session.directory().join(format!("layout{number}"))
    }

    /// An image as `docker save` writes it.
    fn archive(&self, number: usize) -> PathBuf {
        self.session.directory().join(format!("archive{number}.tar"))
    }

    fn store(&self) -> PathBuf {
        self.session.home().join(".local/share/sarus")
    }

    /// What one process of a round does, one of [`COMMANDS`].
    fn command(&self, choice: u64) -> Invocation {
        let number = usize::try_from(choice / 12).unwrap() % 3;
        let (reference, _) = &self.images[number];
        let load = |file: PathBuf, name: &str| {
            self.session.sarus(["load", "--quiet"]).args([file]).args([format!("{name}:{number}")])
        };
        match choice % 12 {
            0..4 => self.session.sarus(["pull", "--quiet", reference]),
            4..6 => load(self.layout(number), "directory"),
            6 => load(self.archive(number), "saved"),
            7 => self.session.sarus(["rmi", reference]),
            8 => self.session.sarus(["rmi", "--force", reference]),
            9 => self.session.sarus(["rmi", "--force", &format!("saved:{number}")]),
            10 => self.session.sarus(["rmi", &format!("directory:{number}")]),
            _ => self.session.sarus(["prune", "--force"]),
        }
    }

    /// After the next command: each image listed is whole and runs, and only the cache is left
    /// beside.
    fn check(&self) {
        let output = self.session.sarus(["images", "--format", "json"]).run();
        let lines: Vec<Value> = serde_json::from_str(output.ok()).unwrap();
        assert_eq!(output.stderr, "", "no damage is reported");
        for line in &lines {
            self.check_image(line["digest"].as_str().unwrap());
        }
        let store = self.store();
        for directory in ["tmp", "leases"] {
            assert_eq!(names(&store.join(directory)), [""; 0], "left in `{directory}`");
        }
        for blob in names(&store.join("blobs")) {
            assert!(!blob.contains(','), "nobody writes it: {blob}");
        }
    }

    fn check_image(&self, digest: &str) {
        let directory = self.store().join("images/v1").join(digest.replace(':', "-"));
        let json = fs_err::read(directory.join("image.json")).unwrap();
        let metadata: Value = serde_json::from_slice(&json).unwrap();
        let squashfs = fs_err::read(directory.join("image.squashfs")).unwrap();
        assert_eq!(metadata["conversion"]["squashfsDigest"], sha256(&squashfs), "{digest}");
        let image = format!("image@{digest}");
        assert_eq!(self.session.sarus(["run", &image, "echo", "runs"]).run().ok(), "runs\n");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs_err::read_dir(directory) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_store_outlives_kills_at_random_times() {
    let seed = number("SARUS_TEST_SEED")
        .unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_secs() | 1));
    println!("SARUS_TEST_SEED={seed}");
    let mut random = Random(seed);
    let ground = Ground::new();
    let wanted = number("SARUS_TEST_KILLS").unwrap_or(40);
    let started = Instant::now();
    let (reference, packed) = &ground.images[0];
    ground.session.sarus(["pull", "--quiet", reference]).run().ok();
    let whole = started.elapsed();

    let (mut killed, mut round) = (0, 0);
    while killed < wanted {
        // One alone, then several at once, of which some are killed and some are not.
        let count = if round % 2 == 0 { 1 } else { 2 + random.below(4) };
        let running: Vec<_> =
            (0..count).map(|_| ground.command(random.below(COMMANDS)).start()).collect();
        let mut spared = Vec::new();
        for (index, command) in (0..).zip(running) {
            if index > 0 && random.below(4) == 0 {
                spared.push(command);
                continue;
            }
            pause(random.of(whole) / u32::try_from(count).unwrap());
            command.signal(Signal::KILL);
            killed += u64::from(command.finish().code().is_none());
        }
        for command in spared {
            let output = command.finish();
            // A removal of what is not there, or of what a pull was just told is there.
            let excused = ["there is no image", "removed from the store at the same time"];
            let excused = excused.iter().any(|text| output.stderr.contains(text));
            assert!(output.code() == Some(0) || excused, "seed {seed}: {output}");
        }
        ground.check();
        round += 1;
    }
    for (reference, image) in &ground.images {
        let output = ground.session.sarus(["pull", "--quiet", reference]).run();
        assert_eq!(output.ok(), format!("{}\n", image.digest()));
    }
    ground.check();
    let digests = names(&ground.store().join("images/v1"));
    for (_, image) in &ground.images {
        assert!(digests.contains(&image.digest().replace(':', "-")), "{digests:?}");
    }
    assert!(digests.len() <= 2 * ground.images.len(), "as pulled and as saved: {digests:?}");
    assert!(ground.registry.sent_blobs().len() >= packed.layer_digests().len());
}

#[expect(clippy::disallowed_methods, reason = "a random time is what is tested: no event ends it")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
