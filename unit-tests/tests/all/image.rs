//! Use cases on images: pulls that succeed, fail and go on; looking up, removing, exporting.

mod shared;

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use sarus_image::policy::Policy;
use sarus_image::squash::{Compression, Compressor, Image as Squashfs, ImageReader, Settings};
use sarus_image::{
    Extent, ImageError, ImageFile, LayerSize, Observer, Origin, Progress, PullSettings, Pulled,
    Removal, Silent, Source, Store, Stores, Target, export, pull, remove, unpack,
};
use sarus_oci::manifest::Descriptor;
use sarus_oci::{Digest, Execution, Hasher, Platform, Reference};
use sarus_registry::{RegistryError, Resolved};
use sarus_unit_tests::chain;
use serde_json::json;

use crate::packed::{Packed, gzip, tar};
use crate::place::Place;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How a download of a blob goes wrong.
#[derive(Clone, Copy)]
enum Fault {
    /// The connection ends after so many bytes of the blob.
    Cut(usize),
    /// A byte is another.
    Altered,
    /// The registry does not have it.
    Absent,
}

/// A registry without a network.
struct Fake {
    image: Packed,
    /// Faults of the blobs, each used once.
    faults: Mutex<Vec<(Digest, Fault)>>,
    /// What was downloaded, and from which byte on.
    log: Mutex<Vec<(Digest, u64)>>,
}

impl Fake {
    fn new(image: Packed) -> Self {
        Self { image, faults: Mutex::default(), log: Mutex::default() }
    }

    fn with(self, layer: usize, fault: Fault) -> Self {
        let digest = self.image.layers[layer].digest.clone();
        self.faults.lock().unwrap().push((digest, fault));
        self
    }

    fn downloads(&self) -> Vec<(Digest, u64)> {
        std::mem::take(&mut *self.log.lock().unwrap())
    }

    fn take_fault(&self, digest: &Digest) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let place = faults.iter().position(|(of, _)| of == digest)?;
        Some(faults.remove(place).1)
    }
}

impl Source for Fake {
    fn resolve(&self, name: &Reference, platform: &Platform) -> Result<Resolved, RegistryError> {
        if name.repository().contains("absent") {
            return Err(not_found(name.repository()));
        }
        Ok(self.image.resolved(name, platform))
    }

    fn download(
        &self,
        _reference: &Reference,
        descriptor: &Descriptor,
        mut hasher: Hasher,
        sink: &mut dyn Write,
    ) -> Result<(), RegistryError> {
        let digest = &descriptor.digest;
        self.log.lock().unwrap().push((digest.clone(), hasher.bytes()));
        let mut blob = self.image.blobs[digest].clone();
        let fault = self.take_fault(digest);
        match fault {
            Some(Fault::Altered) => *blob.last_mut().unwrap() ^= 1,
            Some(Fault::Cut(at)) => blob.truncate(at),
            Some(Fault::Absent) => return Err(not_found(&digest.to_string())),
            None => {}
        }
        let from = usize::try_from(hasher.bytes()).unwrap();
        for chunk in blob[from.min(blob.len())..].chunks(1000) {
            hasher.update(chunk);
            sink.write_all(chunk)
                .map_err(|source| RegistryError::Sink { digest: digest.clone(), source })?;
        }
        if matches!(fault, Some(Fault::Cut(_))) {
            let limit = Duration::from_secs(60);
            return Err(RegistryError::Timeout { host: "registry.example".to_owned(), limit });
        }
        let got = hasher.finish();
        if got == *digest {
            return Ok(());
        }
        Err(RegistryError::Digest {
            host: "registry.example".to_owned(),
            object: digest.to_string(),
            expected: digest.clone(),
            got,
        })
    }

    fn digest(&self, _reference: &Reference) -> Result<Digest, RegistryError> {
        Ok(self.image.digest())
    }
}

fn not_found(object: &str) -> RegistryError {
    RegistryError::NotFound {
        host: "registry.example".to_owned(),
        object: object.to_owned(),
        detail: String::new(),
    }
}

fn settings() -> PullSettings {
    PullSettings {
        squash: Settings { threads: NonZeroUsize::MIN, ..Settings::default() },
        time: None,
        parallel: NonZeroUsize::new(3).unwrap(),
        blob_cache_bytes: 1 << 30,
        removal_grace: DAY,
        policy: Policy::accept_anything(),
    }
}

impl Place {
    fn pull(&self, source: &Fake, name: &str) -> Result<Pulled, ImageError> {
        self.pull_with(source, name, &settings(), &Silent)
    }

    fn pull_with(
        &self,
        source: &Fake,
        name: &str,
        settings: &PullSettings,
        observer: &dyn Observer,
    ) -> Result<Pulled, ImageError> {
        pull(source, &self.store, (&reference(name), &amd64()), settings, observer)
    }

    fn stores(&self) -> Stores {
        Stores::new(self.store.clone(), None)
    }

    fn names_in(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.store.root().join(folder)) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    /// No image, no name, nothing half-written; the blob cache may hold something.
    fn check_empty(&self) {
        for folder in ["images/v1", "names", "tmp"] {
            assert_eq!(self.names_in(folder), [""; 0], "{folder}");
        }
        assert!(self.names_in("blobs").iter().all(|name| !name.contains(',')));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn amd64() -> Platform {
    Platform::parse("linux/amd64").unwrap()
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn large() -> Packed {
    let layers = [("a", 40_000), ("b", 60_000), ("c", 50_000)];
    let tars: Vec<_> = layers.iter().map(|(name, size)| tar(&[(name, &noise(*size))])).collect();
    Packed::new(&tars, &json!({}))
}

// Pull.

#[test]
fn a_pulled_image_is_in_the_store_under_its_name_with_all_that_is_known_of_it() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("hello"));
    let pulled = place.pull(&source, "debian:12").unwrap();
    assert!(!pulled.up_to_date);
    assert_eq!(pulled.found_as, reference("debian:12"));
    assert_eq!(pulled.image.digest, source.image.digest());
    let metadata = &pulled.image.metadata;
    assert_eq!(metadata.config_digest, source.image.config_digest());
    assert_eq!(metadata.platform, amd64());
    assert_eq!(metadata.created.as_deref(), Some("2024-05-01T10:00:00Z"));
    assert_eq!(metadata.config.cmd.as_deref(), Some(["sh".to_owned()].as_slice()));
    assert_eq!(metadata.config.env, ["A=1"]);
    assert_eq!(metadata.layers.len(), 1);
    assert_eq!(metadata.layers[0].digest, source.image.layers[0].digest);
    let mut ids = metadata.ids.clone();
    ids.sort_unstable();
    assert_eq!(ids, [0, 100, 1000], "the root's owner, and those of the file");
    let length = fs::metadata(&pulled.image.squashfs).unwrap().len();
    assert_eq!(metadata.conversion.bytes, length);
    assert_eq!(metadata.conversion.unpacked_bytes, 5);
    let found = place.store.lookup(&reference("debian:12"), &amd64()).unwrap();
    assert_eq!(found, Some(pulled.image));
    assert_eq!(place.names_in("tmp"), [""; 0]);
}

#[test]
fn what_is_up_to_date_is_not_downloaded_again() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("hello"));
    place.pull(&source, "debian:12").unwrap();
    assert_eq!(source.downloads().len(), 1);
    for name in ["debian:12", "debian:bookworm"] {
        assert!(place.pull(&source, name).unwrap().up_to_date);
        assert_eq!(source.downloads(), [], "{name}");
    }
    assert_eq!(place.stores().find("debian:12", &amd64()).unwrap().names.len(), 2);
}

#[test]
fn a_name_that_moved_at_the_registry_moves_in_the_store() {
    let place = Place::new();
    let (old, new) = (Fake::new(Packed::simple("old")), Fake::new(Packed::simple("new")));
    place.pull(&old, "debian:12").unwrap();
    let pulled = place.pull(&new, "debian:12").unwrap();
    assert!(!pulled.up_to_date);
    let found = place.stores().lookup(&reference("debian:12"), &amd64()).unwrap().unwrap();
    assert_eq!(found.digest, new.image.digest());
}

#[test]
fn two_pulls_of_one_image_write_the_same_bytes_whatever_the_threads() {
    let content = |threads, parallel| {
        let place = Place::new();
        let mut settings = settings();
        settings.squash.threads = NonZeroUsize::new(threads).unwrap();
        settings.parallel = NonZeroUsize::new(parallel).unwrap();
        let source = Fake::new(large());
        let image = place.pull_with(&source, "debian:12", &settings, &Silent).unwrap().image;
        let json = image.squashfs.with_file_name("image.json");
        (fs::read(image.squashfs).unwrap(), fs::read(json).unwrap())
    };
    assert_eq!(content(1, 1), content(2, 8));
}

#[test]
fn the_file_systems_time_is_the_images_or_what_is_asked_for() {
    for (config, time, want) in [
        (&b"{\"created\":\"2024-05-01T10:00:00Z\"}"[..], None, 1_714_557_600),
        (b"{\"created\":\"2024-05-01T10:00:00Z\"}", Some(7), 7),
        (b"{\"created\":\"yesterday\"}", None, 0),
        (b"{\"created\":\"1960-05-01T10:00:00Z\"}", None, 0),
        (b"{}", None, 0),
    ] {
        let place = Place::new();
        let source = Fake::new(Packed::simple("hello").with_config(config));
        let settings = PullSettings { time, ..settings() };
        let image = place.pull_with(&source, "debian:12", &settings, &Silent).unwrap().image;
        let file = fs::File::open(&image.squashfs).unwrap();
        let superblock = sarus_image::squash::probe(&file).unwrap();
        assert_eq!(superblock.time, want, "{}", String::from_utf8_lossy(config));
        assert_eq!(image.metadata.platform, amd64(), "what was asked for, where it says nothing");
    }
}

#[test]
fn compression_and_block_size_are_the_settings() {
    let place = Place::new();
    let mut settings = settings();
    settings.squash.compression = Compression::Gzip { level: 6 };
    settings.squash.block_size = 65_536;
    let source = Fake::new(large());
    let image = place.pull_with(&source, "debian:12", &settings, &Silent).unwrap().image;
    let superblock = sarus_image::squash::probe(&fs::File::open(image.squashfs).unwrap()).unwrap();
    assert_eq!((superblock.compressor, superblock.block_size), (Compressor::Gzip, 65_536));
    assert_eq!(image.metadata.conversion.compression, "gzip:6");
    assert_eq!(image.metadata.conversion.block_size, 65_536);
}

#[test]
fn an_image_without_layers_is_an_empty_tree() {
    let place = Place::new();
    let image = place.pull(&Fake::new(Packed::new(&[], &json!({}))), "scratch").unwrap().image;
    let file = fs::File::open(image.squashfs).unwrap();
    let mut inodes = 0;
    ImageReader::new(&Squashfs::open(&file).unwrap())
        .unwrap()
        .for_each_inode(|_| inodes += 1)
        .unwrap();
    assert_eq!(inodes, 1);
}

#[test]
fn a_layer_that_occurs_twice_is_downloaded_once() {
    let place = Place::new();
    let (one, two) = (tar(&[("a", b"1")]), tar(&[("a", b"2")]));
    let source = Fake::new(Packed::new(&[one.clone(), two, one], &json!({})));
    let image = place.pull(&source, "debian:12").unwrap().image;
    assert_eq!(source.downloads().len(), 2);
    assert_eq!(image.metadata.layers.len(), 3);
    let tree = place.path("tree");
    fs::DirBuilder::new().create(&tree).unwrap();
    unpack(&image.squashfs, &tree).unwrap();
    assert_eq!(fs::read(tree.join("a")).unwrap(), b"1", "the last layer counts");
}

#[test]
fn a_layer_that_another_image_brought_comes_from_the_cache() {
    let place = Place::new();
    let base = tar(&[("base", &noise(20_000))]);
    let one = Fake::new(Packed::new(&[base.clone(), tar(&[("a", b"1")])], &json!({})));
    let two = Fake::new(Packed::new(&[base, tar(&[("b", b"2")])], &json!({})));
    place.pull(&one, "one").unwrap();
    let watcher = Watcher::default();
    place.pull_with(&two, "two", &settings(), &watcher).unwrap();
    assert_eq!(two.downloads(), [(two.image.layers[1].digest.clone(), 0)]);
    let mut done = watcher.done.lock().unwrap().clone();
    done.sort_by_key(|(layer, _)| *layer);
    assert_eq!(done, [(0, Origin::Cache), (1, Origin::Registry)]);
}

#[test]
fn a_blob_that_is_damaged_in_the_cache_is_downloaded_again() {
    let place = Place::new();
    let source = Fake::new(large());
    place.pull(&source, "debian:12").unwrap();
    remove(&place.store, "debian:12", &amd64(), Extent::Forced).unwrap();
    let digest = &source.image.layers[1].digest;
    let blob = place.store.root().join(format!("blobs/sha256-{}", digest.hex()));
    let mut content = fs::read(&blob).unwrap();
    content[100] ^= 1;
    fs::File::create(&blob).unwrap().write_all(&content).unwrap();
    source.downloads();
    place.pull(&source, "debian:12").unwrap();
    assert_eq!(source.downloads(), [(digest.clone(), 0)]);
}

#[test]
fn the_cache_is_trimmed_after_a_pull_also_one_that_failed() {
    let settings = PullSettings { blob_cache_bytes: 0, ..settings() };
    for source in [Fake::new(large()), Fake::new(large()).with(2, Fault::Cut(5000))] {
        let place = Place::new();
        drop(place.pull_with(&source, "debian:12", &settings, &Silent));
        assert_eq!(place.names_in("blobs"), [""; 0]);
    }
}

/// Notes what a pull tells.
#[derive(Default)]
struct Watcher {
    layers: Mutex<Vec<LayerSize>>,
    fetched: Mutex<Vec<(usize, u64)>>,
    done: Mutex<Vec<(usize, Origin)>>,
    converted: Mutex<Vec<Progress>>,
    stored: Mutex<usize>,
}

impl Observer for Watcher {
    fn begin(&self, layers: &[LayerSize]) {
        self.layers.lock().unwrap().extend_from_slice(layers);
    }
    fn fetched(&self, layer: usize, bytes: u64) {
        self.fetched.lock().unwrap().push((layer, bytes));
    }
    fn layer_done(&self, layer: usize, origin: Origin) {
        self.done.lock().unwrap().push((layer, origin));
    }
    fn converted(&self, progress: Progress) {
        self.converted.lock().unwrap().push(progress);
    }
    fn storing(&self) {
        *self.stored.lock().unwrap() += 1;
    }
}

#[test]
fn an_observer_hears_of_every_layer_up_to_its_end() {
    let place = Place::new();
    let source = Fake::new(large());
    let watcher = Watcher::default();
    place.pull_with(&source, "debian:12", &settings(), &watcher).unwrap();
    let sizes: Vec<u64> = watcher.layers.lock().unwrap().iter().map(|layer| layer.size).collect();
    assert_eq!(sizes, source.image.layers.iter().map(|layer| layer.size).collect::<Vec<_>>());
    let fetched = watcher.fetched.lock().unwrap();
    for (layer, size) in sizes.iter().enumerate() {
        let seen: Vec<u64> =
            fetched.iter().filter(|(of, _)| *of == layer).map(|(_, bytes)| *bytes).collect();
        assert!(seen.is_sorted());
        assert_eq!(seen.last(), Some(size));
    }
    assert_eq!(watcher.done.lock().unwrap().len(), 3);
    assert_eq!(watcher.converted.lock().unwrap().last().unwrap().layer, 2);
    assert_eq!(*watcher.stored.lock().unwrap(), 1);
}

// Pulls that fail.

#[test]
fn an_image_that_the_registry_does_not_have_changes_nothing() {
    let place = Place::new();
    let error = place.pull(&Fake::new(Packed::simple("x")), "absent").unwrap_err();
    assert!(matches!(error, ImageError::Registry(RegistryError::NotFound { .. })), "{error}");
    assert!(!place.store.root().exists());
}

#[test]
fn a_blob_with_another_digest_is_refused_and_not_kept() {
    for layer in 0..3 {
        let place = Place::new();
        let source = Fake::new(large()).with(layer, Fault::Altered);
        let error = place.pull(&source, "debian:12").unwrap_err();
        let digest = &source.image.layers[layer].digest;
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("`{digest}` from `registry.example` is altered")),
            "{text}"
        );
        place.check_empty();
        let kept = format!("sha256-{}", digest.hex());
        assert!(!place.names_in("blobs").iter().any(|name| name.starts_with(&kept)));
        place.pull(&source, "debian:12").unwrap();
    }
}

#[test]
fn a_download_that_breaks_leaves_nothing_but_its_beginning_which_the_next_pull_continues() {
    let place = Place::new();
    let source = Fake::new(large()).with(1, Fault::Cut(5000));
    let error = place.pull(&source, "debian:12").unwrap_err();
    assert_eq!(error.to_string(), "`registry.example` did not answer within 60 s");
    place.check_empty();
    source.downloads();
    place.pull(&source, "debian:12").unwrap();
    let digest = source.image.layers[1].digest.clone();
    assert!(source.downloads().contains(&(digest, 5000)));
}

#[test]
fn a_beginning_that_turns_out_to_be_wrong_is_fetched_anew_within_the_same_pull() {
    let place = Place::new();
    let source = Fake::new(large()).with(1, Fault::Cut(5000));
    place.pull(&source, "debian:12").unwrap_err();
    let digest = source.image.layers[1].digest.clone();
    let beginning = place.store.root().join(format!("blobs/sha256-{}.partial", digest.hex()));
    let mut content = fs::read(&beginning).unwrap();
    content[4000] ^= 1;
    fs::File::create(&beginning).unwrap().write_all(&content).unwrap();
    source.downloads();
    place.pull(&source, "debian:12").unwrap();
    let of_blob: Vec<u64> =
        source.downloads().iter().filter(|(of, _)| *of == digest).map(|(_, from)| *from).collect();
    assert_eq!(of_blob, [5000, 0]);
}

#[test]
fn a_beginning_longer_than_the_blob_is_not_used_and_a_whole_one_needs_no_download() {
    for (extra, want) in [(1, 1), (0, 0)] {
        let place = Place::new();
        let source = Fake::new(Packed::simple("hello"));
        let digest = source.image.layers[0].digest.clone();
        let mut blob = source.image.blobs[&digest].clone();
        blob.resize(blob.len() + extra, 0);
        let mut partial = place.store.blobs().begin(&digest).unwrap();
        partial.append(&blob).unwrap();
        drop(partial);
        place.pull(&source, "debian:12").unwrap();
        assert_eq!(source.downloads().len(), want, "{extra} bytes too many");
    }
}

#[test]
fn a_blob_that_is_gone_at_the_registry_stops_the_other_downloads() {
    let place = Place::new();
    let settings = PullSettings { parallel: NonZeroUsize::MIN, ..settings() };
    let source = Fake::new(large()).with(0, Fault::Absent);
    let error = place.pull_with(&source, "debian:12", &settings, &Silent).unwrap_err();
    assert!(matches!(error, ImageError::Registry(RegistryError::NotFound { .. })), "{error}");
    assert_eq!(source.downloads().len(), 1, "what came after it was not asked for");
    place.check_empty();
}

#[test]
fn layers_that_are_no_archives_are_named_and_leave_nothing() {
    let good = tar(&[("a", b"1")]);
    let truncated = {
        let mut gzipped = gzip(&tar(&[("a", &noise(5000))]));
        gzipped.truncate(2000);
        gzipped
    };
    let mut broken = tar(&[("a", b"1"), ("b", b"2")]);
    broken[1024 + 148] = b'7';
    for (blob, want) in [
        (truncated, "cannot read layer"),
        (b"<html>no layer</html>".repeat(40), "is no tar archive"),
        (b"BZh91AY&SY".repeat(100), "is compressed with bzip2, expected gzip, zstd or none"),
        (gzip(&broken), "is no sound tar archive at entry 2"),
        (gzip(&tar(&[("a", &noise(5000))])[..3000]), "is no sound tar archive at entry 1"),
    ] {
        let place = Place::new();
        let source = Fake::new(Packed::of_blobs(&[gzip(&good), blob.clone()], &[], &json!({})));
        let error = place.pull(&source, "debian:12").unwrap_err();
        assert_eq!(error.to_string(), "cannot convert the image `docker.io/library/debian:12`");
        let text = chain(&error);
        assert!(text.contains(want), "expected {want}: {text}");
        assert!(text.contains(&Digest::sha256_of(&blob).to_string()), "the layer is named: {text}");
        place.check_empty();
        assert_eq!(place.names_in("blobs").len(), 2, "they were what the manifest says");
    }
}

#[test]
fn content_that_cannot_be_converted_is_the_downloads_fault_where_its_digest_is_wrong() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("hello"));
    let digest = source.image.layers[0].digest.clone();
    // A byte in the middle: inflating fails before the end, and the digest at the end.
    let mut altered = Fake::new(source.image.clone());
    altered.image.blobs.get_mut(&digest).unwrap()[20] ^= 0xff;
    let error = place.pull(&altered, "debian:12").unwrap_err();
    assert!(matches!(error, ImageError::Registry(RegistryError::Digest { .. })), "{error}");
    place.check_empty();
    assert_eq!(place.names_in("blobs"), [""; 0]);
}

#[test]
fn a_configuration_that_is_none_is_refused_before_anything_is_downloaded() {
    for config in [&b"no json"[..], b"7", b"{\"config\":{\"Env\":\"A=1\"}}"] {
        let place = Place::new();
        let source = Fake::new(Packed::simple("hello").with_config(config));
        let error = place.pull(&source, "debian:12").unwrap_err();
        assert_eq!(error.to_string(), "cannot use the image `docker.io/library/debian:12`");
        assert!(error.source().is_some());
        assert_eq!(source.downloads(), []);
        place.check_empty();
    }
}

#[test]
fn a_damaged_image_is_pulled_anew() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("hello"));
    let image = place.pull(&source, "debian:12").unwrap().image;
    fs::File::create(&image.squashfs).unwrap();
    assert!(place.stores().lookup(&reference("debian:12"), &amd64()).is_err());
    let pulled = place.pull(&source, "debian:12").unwrap();
    assert!(!pulled.up_to_date);
    assert_eq!(pulled.image, image);
    assert_eq!(place.names_in("tmp"), [""; 0]);
}

#[test]
fn stores_that_cannot_be_written_are_refused_before_anything_is_downloaded() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::File::create(&file).unwrap();
    for (store, want) in [
        (Store::open_read_only(directory.path()), "is for reading only"),
        (Store::open(file.join("sarus")), "cannot read `"),
    ] {
        let source = Fake::new(Packed::simple("hello"));
        let name = reference("debian:12");
        let error = pull(&source, &store, (&name, &amd64()), &settings(), &Silent).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert!(error.hint().is_some());
        assert_eq!(source.downloads(), []);
    }
}

#[test]
fn what_a_killed_pull_left_is_collected_by_the_next() {
    let place = Place::new();
    let label = sarus_store::Owner::current().label();
    let (process, start) = label.rsplit_once(',').unwrap();
    let dead = format!("{process},{}", start.parse::<u64>().unwrap() + 1);
    let aside = place.store.root().join("tmp").join(format!("image,{dead},0"));
    fs::DirBuilder::new().recursive(true).create(&aside).unwrap();
    fs::File::create(aside.join("image.squashfs")).unwrap();
    place.pull(&Fake::new(Packed::simple("hello")), "debian:12").unwrap();
    assert_eq!(place.names_in("tmp"), [""; 0]);
}

#[test]
fn two_pulls_of_one_image_at_once_both_succeed() {
    let place = Place::new();
    let source = Fake::new(large());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| place.pull(&source, "debian:12").unwrap());
        }
    });
    assert_eq!(place.names_in("images/v1").len(), 1);
    assert_eq!(place.names_in("tmp"), [""; 0]);
    assert_eq!(place.names_in("blobs").len(), 3);
}

// Looking up.

#[test]
fn an_image_is_found_by_name_by_digest_and_by_the_beginning_of_its_id() {
    let place = Place::new();
    let (one, two) = (Fake::new(Packed::simple("one")), Fake::new(Packed::simple("two")));
    place.pull(&one, "debian:12").unwrap();
    place.pull(&two, "ubuntu").unwrap();
    let stores = place.stores();
    let (digest, id) = (one.image.digest(), one.image.config_digest());
    for given in [
        "debian:12".to_owned(),
        "docker.io/library/debian:12".to_owned(),
        format!("debian@{digest}"),
        id.to_string(),
        id.hex()[..12].to_owned(),
        digest.to_string(),
        digest.hex()[..12].to_owned(),
    ] {
        let found = stores.find(&given, &amd64()).unwrap();
        assert_eq!(found.image.digest, digest, "{given}");
        assert_eq!(found.names.len(), 1, "{given}");
        assert_eq!(found.store.root(), place.store.root());
    }
    for given in ["debian", "abcd", "debian:11", "sha256:0000"] {
        let error = stores.find(given, &amd64()).unwrap_err();
        assert_eq!(error.to_string(), format!("there is no image `{given}` in the store"));
        assert!(error.hint().unwrap().contains("sarus pull"));
    }
    assert!(matches!(stores.find("UPPER", &amd64()), Err(ImageError::Reference(_))));
}

#[test]
fn a_beginning_that_two_ids_share_is_refused_and_tells_them_apart() {
    let place = Place::new();
    // One configuration, two manifests: the id alone does not tell which.
    let one = Packed::of_blobs(&[gzip(&tar(&[("a", b"1")]))], &[], &json!({}));
    let two = Packed::of_blobs(&[tar(&[("a", b"1")])], &[], &json!({}));
    assert_eq!(one.config_digest(), two.config_digest());
    let id = one.config_digest().hex()[..12].to_owned();
    let digests = [one.digest(), two.digest()];
    place.pull(&Fake::new(one), "one").unwrap();
    place.pull(&Fake::new(two), "two").unwrap();
    let error = place.stores().find(&id, &amd64()).unwrap_err();
    let text = error.to_string();
    assert!(digests.iter().all(|digest| text.contains(&digest.to_string())), "{text}");
    assert_eq!(error.hint().as_deref(), Some("give more digits"));
    for digest in digests {
        assert_eq!(
            place.stores().find(&digest.to_string(), &amd64()).unwrap().image.digest,
            digest
        );
    }
}

#[test]
fn the_users_store_is_looked_into_before_the_sites() {
    let (own, site) = (Place::new(), Place::new());
    let (mine, theirs) = (Fake::new(Packed::simple("mine")), Fake::new(Packed::simple("theirs")));
    own.pull(&mine, "debian:12").unwrap();
    site.pull(&theirs, "debian:12").unwrap();
    site.pull(&theirs, "site/only").unwrap();
    let read_only = Store::open_read_only(site.store.root());
    let stores = Stores::new(own.store.clone(), Some(read_only));
    assert_eq!(stores.iter().count(), 2);
    for (name, want) in [("debian:12", &mine), ("site/only", &theirs)] {
        let found = stores.lookup(&reference(name), &amd64()).unwrap().unwrap();
        assert_eq!(found.digest, want.image.digest(), "{name}");
        assert_eq!(stores.find(name, &amd64()).unwrap().image.digest, want.image.digest());
    }
    let id = theirs.image.config_digest().hex()[..12].to_owned();
    assert_eq!(stores.find(&id, &amd64()).unwrap().store.root(), site.store.root());
    assert_eq!(stores.lookup(&reference("none"), &amd64()).unwrap(), None);
}

// A path as an image.

#[test]
fn a_path_is_told_from_a_reference() {
    let place = Place::new();
    let image = place.pull(&Fake::new(Packed::simple("hello")), "debian:12").unwrap().image;
    let file = place.path("no-ending");
    fs::copy(&image.squashfs, &file).unwrap();
    for path in [&image.squashfs, &file] {
        let want = Target::File(ImageFile {
            path: path.clone(),
            offset: 0,
            execution: Execution::default(),
        });
        assert_eq!(Target::find(path.as_os_str()).unwrap(), want);
    }
    for name in ["debian:12", "quay.io/a/b", "localhost:5000/a"] {
        assert_eq!(Target::find(OsStr::new(name)).unwrap(), Target::Reference(reference(name)));
    }
    assert!(matches!(Target::find(OsStr::from_bytes(b"a\xffb")), Err(ImageError::Reference(_))));
}

#[test]
fn a_file_that_is_no_image_is_refused_with_what_it_is() {
    let place = Place::new();
    let image = place.pull(&Fake::new(large()), "debian:12").unwrap().image;
    let text = place.path("text");
    fs::File::create(&text).unwrap().write_all(&noise(4096)).unwrap();
    let cut = place.path("cut.sqsh");
    let content = fs::read(&image.squashfs).unwrap();
    fs::File::create(&cut).unwrap().write_all(&content[..content.len() / 2]).unwrap();
    let empty = place.path("empty.sqsh");
    fs::File::create(&empty).unwrap();
    for path in [&text, &cut, &empty] {
        let error = Target::find(path.as_os_str()).unwrap_err();
        let want = format!("`{}` cannot be used as an image", path.display());
        assert_eq!(error.to_string(), want);
        assert!(error.source().is_some(), "says what is wrong");
        assert!(error.hint().is_some());
    }
    let directory = place.path("directory.sqsh");
    fs::DirBuilder::new().create(&directory).unwrap();
    let error = Target::find(directory.as_os_str()).unwrap_err();
    assert!(error.to_string().ends_with("is no image: it is not a regular file"), "{error}");
    let error = Target::find(place.path("missing.sqsh").as_os_str()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the image file `"), "{error}");
    assert!(error.hint().unwrap().contains("debian:12"));
}

// Removal.

#[test]
fn removing_one_of_two_names_keeps_the_image() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("hello"));
    place.pull(&source, "debian:12").unwrap();
    place.pull(&source, "debian:bookworm").unwrap();
    let careful = Extent::Careful(DAY);
    let removed = remove(&place.store, "debian:12", &amd64(), careful).unwrap();
    assert_eq!(removed.names, [reference("debian:12")]);
    assert_eq!((removed.image, removed.removal), (None, Removal::NameOnly));
    let removed = remove(&place.store, "debian:bookworm", &amd64(), careful).unwrap();
    assert_eq!(removed.image, Some(source.image.digest()));
    assert_eq!(removed.removal, Removal::Deferred(DAY));
    let error = remove(&place.store, "debian:bookworm", &amd64(), careful).unwrap_err();
    assert!(matches!(error, ImageError::Missing { .. }), "{error}");
}

#[test]
fn an_image_with_several_names_is_removed_by_id_only_by_force() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("hello"));
    place.pull(&source, "debian:12").unwrap();
    place.pull(&source, "debian:bookworm").unwrap();
    let id = source.image.config_digest().hex()[..12].to_owned();
    let error = remove(&place.store, &id, &amd64(), Extent::Careful(DAY)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the image `{id}` has more than one name: `docker.io/library/debian:12`, \
             `docker.io/library/debian:bookworm`"
        )
    );
    assert!(error.hint().unwrap().contains("--force"));
    let removed = remove(&place.store, &id, &amd64(), Extent::Forced).unwrap();
    assert_eq!(removed.names.len(), 2);
    assert_eq!((removed.image, removed.removal), (Some(source.image.digest()), Removal::Deleted));
    place.check_empty();
}

#[test]
fn an_image_with_one_name_is_removed_by_id() {
    let place = Place::new();
    let source = Fake::new(Packed::simple("hello"));
    place.pull(&source, "debian:12").unwrap();
    let id = source.image.config_digest().to_string();
    let removed = remove(&place.store, &id, &amd64(), Extent::Careful(DAY)).unwrap();
    assert_eq!(removed.names, [reference("debian:12")]);
    assert_eq!(removed.image, Some(source.image.digest()));
}

// Export.

fn exported(place: &Place, file: &Path, replace: bool) -> Result<(), ImageError> {
    let found = place.stores().find("debian:12", &amd64()).unwrap().image;
    export(&found, file, replace)
}

#[test]
fn an_export_is_the_stores_image_with_its_own_owners() {
    let place = Place::new();
    let image = place.pull(&Fake::new(large()), "debian:12").unwrap().image;
    let file = place.path("export.sqsh");
    exported(&place, &file, false).unwrap();
    let (stored, written) = (fs::read(&image.squashfs).unwrap(), fs::read(&file).unwrap());
    assert_eq!(stored.len(), written.len());
    let ids_of = |path: &Path| {
        let file = fs::File::open(path).unwrap();
        let image = Squashfs::open(&file).unwrap();
        let mut reader = ImageReader::new(&image).unwrap();
        let count = image.superblock().ids;
        (0..count).map(|index| reader.id(index).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids_of(&file), image.metadata.ids);
    assert!(ids_of(&image.squashfs).iter().all(|id| *id == 0));
    let differing = stored.iter().zip(&written).filter(|(one, other)| one != other).count();
    assert!(differing <= 4 * image.metadata.ids.len(), "nothing but the owners: {differing}");
    assert_eq!(fs::metadata(&file).unwrap().nlink(), 1);
}

#[test]
fn an_export_replaces_a_file_only_by_force_and_leaves_nothing_beside_it() {
    let place = Place::new();
    place.pull(&Fake::new(Packed::simple("hello")), "debian:12").unwrap();
    let directory = place.path("out");
    fs::DirBuilder::new().create(&directory).unwrap();
    let file = directory.join("x".repeat(255));
    fs::File::create(&file).unwrap().write_all(b"mine").unwrap();
    let error = exported(&place, &file, false).unwrap_err();
    assert!(error.to_string().ends_with("the file exists"), "{error}");
    assert_eq!(error.hint().as_deref(), Some("`--force` replaces it"));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    exported(&place, &file, true).unwrap();
    ImageFile::open(&file).unwrap();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn an_export_to_what_is_no_place_for_a_file_is_refused() {
    let place = Place::new();
    place.pull(&Fake::new(Packed::simple("hello")), "debian:12").unwrap();
    let error = exported(&place, Path::new("-"), false).unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("name a file"));
    for path in [place.path(""), place.path("missing/x")] {
        let error = exported(&place, &path, true).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot write `{}`", path.display()));
    }
    let image = place.stores().find("debian:12", &amd64()).unwrap().image;
    fs::remove_file(&image.squashfs).unwrap();
    let error = export(&image, &place.path("x"), false).unwrap_err();
    assert!(error.to_string().starts_with("cannot read the image file `"), "{error}");
    fs::File::create(&image.squashfs).unwrap().write_all(&noise(4096)).unwrap();
    let error = export(&image, &place.path("x"), false).unwrap_err();
    assert!(matches!(error, ImageError::RestoreOwners { .. }), "{error}");
    assert!(!place.path("x").exists());
}

#[test]
fn an_image_is_unpacked_into_a_directory_that_exists() {
    let place = Place::new();
    let image = place.pull(&Fake::new(Packed::simple("hello")), "debian:12").unwrap().image;
    let tree = place.path("tree");
    let error = unpack(&image.squashfs, &tree).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot open the directory `{}`", tree.display()));
    assert_eq!(error.hint().as_deref(), Some("make the directory first"));
    fs::DirBuilder::new().create(&tree).unwrap();
    let unpacked = unpack(&image.squashfs, &tree).unwrap();
    assert_eq!(unpacked.bytes, 5);
    assert_eq!(fs::read(tree.join("hello")).unwrap(), b"hello");
    let error = unpack(&place.path("missing"), &tree).unwrap_err();
    assert!(matches!(error, ImageError::OpenFile { .. }), "{error}");
    let text = place.path("text");
    fs::File::create(&text).unwrap().write_all(&noise(4096)).unwrap();
    let error = unpack(&text, &tree).unwrap_err();
    assert!(error.to_string().starts_with("cannot unpack `"), "{error}");
}

#[test]
fn a_descriptor_that_cannot_be_had_says_what_to_raise() {
    let error = ImageError::Duplicate { source: io::Error::from_raw_os_error(24) };
    assert!(error.hint().unwrap().contains("ulimit -n"));
}
