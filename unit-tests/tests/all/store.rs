//! The image store: its layout, what readers see at each step of a writer, and what is tidied up.

mod lease;
mod prune;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use sarus_oci::{Digest, Execution, Platform, Reference};
use sarus_store::{
    Conversion, FOREIGN_AGE_MAX, Image, Layer, METADATA_VERSION, Metadata, Name, Owner, Removal,
    Store, StoreError,
};

use crate::place::Place;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn digest(number: u32) -> Digest {
    Digest::sha256_of(&number.to_le_bytes())
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn amd64() -> Platform {
    Platform::parse("linux/amd64").unwrap()
}

fn metadata(digest: &Digest, bytes: u64) -> Metadata {
    Metadata {
        version: METADATA_VERSION,
        digest: digest.clone(),
        config_digest: Digest::sha256_of(b"configuration"),
        platform: amd64(),
        created: Some("2024-05-01T10:00:00Z".to_owned()),
        config: Execution { cmd: Some(vec!["sh".to_owned()]), ..Execution::default() },
        layers: vec![Layer {
            digest: Digest::sha256_of(b"layer"),
            size: 9,
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
        }],
        ids: vec![0, 1000],
        conversion: Conversion {
            bytes,
            squashfs_digest: None,
            unpacked_bytes: 5,
            entries: 2,
            compression: "zstd:1".to_owned(),
            block_size: 131_072,
        },
    }
}

impl Place {
    fn root(&self) -> &Path {
        self.store.root()
    }

    fn image_directory(&self, digest: &Digest) -> PathBuf {
        self.root().join("images/v1").join(format!("sha256-{}", digest.hex()))
    }

    fn name_file(&self, encoded: &str) -> PathBuf {
        self.root().join("names").join(format!("{encoded},linux-amd64"))
    }

    /// Adds an image without a name.
    fn add(&self, digest: &Digest, content: &[u8]) -> Image {
        let pending = self.store.begin(digest).unwrap();
        let mut file = pending.file();
        file.write_all(content).unwrap();
        pending.commit(&metadata(digest, content.len() as u64)).unwrap()
    }

    fn add_named(&self, digest: &Digest, name: &str) -> Image {
        let image = self.add(digest, name.as_bytes());
        self.tag(name, digest).unwrap();
        image
    }

    fn tag(&self, name: &str, digest: &Digest) -> Result<(), StoreError> {
        self.store.tag(&reference(name), &amd64(), digest)
    }

    fn lookup(&self, name: &str) -> Option<Digest> {
        self.store.lookup(&reference(name), &amd64()).unwrap().map(|image| image.digest)
    }

    fn remove(&self, name: &str, grace: Duration) -> Option<Removal> {
        self.store.remove(&reference(name), &amd64(), grace).unwrap()
    }

    fn temporaries(&self) -> Vec<String> {
        names_in(&self.root().join("tmp"))
    }

    fn blobs(&self) -> Vec<String> {
        names_in(&self.root().join("blobs"))
    }

    /// What a reader may hold on to: names and images, and that each image is whole.
    fn check(&self) {
        let listing = self.store.list().unwrap();
        assert_eq!(listing.damaged.len(), 0, "{:?}", listing.damaged);
        for (digest, summary) in &listing.images {
            let image = self.store.image(digest).unwrap().unwrap();
            assert_eq!(fs::metadata(&image.squashfs).unwrap().len(), summary.bytes);
            assert_eq!(image.metadata.summary(), *summary);
        }
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every path below a directory, with the content of files.
fn snapshot(directory: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path.clone());
                found.insert((path, Vec::new()));
            } else {
                found.insert((path.clone(), fs::read(&path).unwrap()));
            }
        }
    }
    found
}

fn put(path: &Path, content: impl AsRef<[u8]>) {
    fs::DirBuilder::new().recursive(true).create(path.parent().unwrap()).unwrap();
    fs::File::create(path).unwrap().write_all(content.as_ref()).unwrap();
}

fn make_old(path: &Path, age: Duration) {
    fs::File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

/// The label of a process that was: this one, with another start time.
fn dead_label() -> String {
    let label = Owner::current().label();
    let (process, start) = label.rsplit_once(',').unwrap();
    format!("{process},{}", start.parse::<u64>().unwrap() + 1)
}

/// The label of a process on a node that cannot be seen from here.
fn foreign_label() -> String {
    format!("elsewhere{}", Owner::current().label())
}

// Layout.

#[test]
fn an_image_is_two_files_under_its_digest_and_a_name_is_one_under_its_reference() {
    let place = Place::new();
    let digest = digest(1);
    place.add_named(&digest, "debian:12");
    let root = place.root();
    let hex = digest.hex();
    let files: Vec<String> = snapshot(root)
        .into_iter()
        .filter(|(path, _)| path.is_file())
        .map(|(path, _)| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        files,
        [
            format!("images/v1/sha256-{hex}/image.json"),
            format!("images/v1/sha256-{hex}/image.squashfs"),
            "names/docker.io+library+debian=12,linux-amd64".to_owned(),
        ]
    );
}

#[test]
fn a_users_store_is_closed_to_others_and_a_sites_is_open_to_readers() {
    let directory = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let own = Store::open(directory.path().join("own"));
    let site = Store::open_shared(directory.path().join("site"));
    for (store, want) in [(&own, 0o700), (&site, 0o755)] {
        drop(store.begin(&digest(1)).unwrap());
        assert_eq!(mode(store.root()), want, "{}", store.root().display());
    }
}

#[test]
fn what_is_stored_of_an_image_comes_back() {
    let place = Place::new();
    let digest = digest(1);
    let image = place.add_named(&digest, "debian:12");
    let mut expected = metadata(&digest, 9);
    expected.conversion.squashfs_digest = Some(Digest::sha256_of(b"debian:12"));
    assert_eq!(image.metadata, expected);
    assert_eq!(fs::read(&image.squashfs).unwrap(), b"debian:12");
    let found = place.store.lookup(&reference("docker.io/library/debian:12"), &amd64()).unwrap();
    assert_eq!(found, Some(image));
    let name = place.store.name(&reference("debian:12"), &amd64()).unwrap().unwrap();
    assert_eq!((name.version, name.digest), (METADATA_VERSION, digest));
    assert!(name.pulled > 0);
}

#[test]
fn an_image_pulled_twice_has_the_same_bytes_in_both_of_its_files() {
    let (one, two) = (Place::new(), Place::new());
    let digest = digest(1);
    for file in ["image.json", "image.squashfs"] {
        let content = |place: &Place| {
            place.add(&digest, b"content");
            fs::read(place.image_directory(&digest).join(file)).unwrap()
        };
        assert_eq!(content(&one), content(&two), "{file}");
    }
}

#[test]
fn one_reference_has_an_image_for_each_platform() {
    let place = Place::new();
    let arm = Platform::parse("linux/arm64").unwrap();
    place.add_named(&digest(1), "debian:12");
    place.add(&digest(2), b"arm");
    place.store.tag(&reference("debian:12"), &arm, &digest(2)).unwrap();
    let lookup = |platform: &str| {
        let platform = Platform::parse(platform).unwrap();
        place.store.lookup(&reference("debian:12"), &platform).unwrap().map(|image| image.digest)
    };
    assert_eq!(lookup("linux/amd64"), Some(digest(1)));
    assert_eq!(lookup("linux/arm64"), Some(digest(2)));
    assert_eq!(lookup("linux/arm64/v8"), Some(digest(2)), "another word for arm64");
    assert_eq!(lookup("linux/ppc64le"), None);
}

#[test]
fn references_of_every_form_have_names_of_their_own() {
    let place = Place::new();
    let long = format!("registry.example/{}/{}:t", "a".repeat(110), "b".repeat(110));
    let hex = digest(9);
    let pinned = format!("debian@{hex}");
    let both = format!("debian:12@{hex}");
    let given = [
        "debian",
        "debian:12",
        "quay.io/a/b:1",
        "127.0.0.1:5000/a",
        "localhost/a-b_c.d:V1",
        &long,
        &pinned,
        &both,
    ];
    for (number, name) in given.iter().enumerate() {
        place.add_named(&digest(number.try_into().unwrap()), name);
    }
    for (number, name) in given.iter().enumerate() {
        assert_eq!(place.lookup(name), Some(digest(number.try_into().unwrap())), "{name}");
    }
    assert_eq!(place.store.list().unwrap().names.len(), given.len());
    assert_eq!(names_in(place.directory.path()), ["sarus"], "nothing is outside the store");
}

#[test]
fn a_reference_with_a_digest_finds_the_image_whatever_name_it_was_pulled_by() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    assert_eq!(place.lookup(&format!("quay.io/other@{}", digest(1))), Some(digest(1)));
    assert_eq!(place.lookup(&format!("debian@{}", digest(2))), None);
    place.remove("debian:12", DAY);
    assert_eq!(place.lookup(&format!("debian@{}", digest(1))), None, "removed, though kept");
}

#[test]
fn a_store_that_is_not_there_is_an_empty_one_and_stays_so() {
    let place = Place::new();
    assert_eq!(place.lookup("debian:12"), None);
    assert_eq!(place.store.image(&digest(1)).unwrap(), None);
    let listing = place.store.list().unwrap();
    assert!(listing.names.is_empty() && listing.images.is_empty());
    place.store.sweep(Duration::ZERO).unwrap();
    place.store.blobs().trim(0).unwrap();
    assert!(place.store.blobs().open(&digest(1)).unwrap().is_none());
    assert_eq!(place.remove("debian:12", DAY), None);
    assert!(!place.root().exists());
}

#[test]
fn what_a_name_remembers_of_its_image_is_listed_only_where_it_is_still_so() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    let path = place.name_file("docker.io+library+debian=12");
    let summary = || place.store.list().unwrap().images[&digest(1)].clone();
    let truth = summary();
    let mut name: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    name["image"]["summary"]["created"] = "2001-01-01T00:00:00Z".into();
    put(&path, serde_json::to_vec(&name).unwrap());
    assert_eq!(summary().created.as_deref(), Some("2001-01-01T00:00:00Z"), "it is believed");
    name["image"]["metadataBytes"] = 7.into();
    put(&path, serde_json::to_vec(&name).unwrap());
    assert_eq!(summary(), truth, "the metadata were replaced since");
    // As an older version gives names.
    name.as_object_mut().unwrap().remove("image");
    put(&path, serde_json::to_vec(&name).unwrap());
    assert_eq!(summary(), truth);
    place.check();
}

#[test]
fn a_thousand_images_are_listed_in_order() {
    let place = Place::in_memory();
    for number in 0..1000 {
        place.add_named(&digest(number), &format!("images/number:{number:04}"));
    }
    let listing = place.store.list().unwrap();
    assert_eq!((listing.names.len(), listing.images.len(), listing.damaged.len()), (1000, 1000, 0));
    let tags: Vec<_> = listing.names.iter().map(|name| name.reference.tag().unwrap()).collect();
    assert!(tags.is_sorted());
    assert_eq!(place.lookup("images/number:0777"), Some(digest(777)));
}

// A writer that is killed.

#[test]
fn until_an_image_is_committed_nobody_sees_it() {
    let place = Place::new();
    let pending = place.store.begin(&digest(1)).unwrap();
    pending.file().write_all_at(b"half", 0).unwrap();
    assert_eq!(place.store.image(&digest(1)).unwrap(), None);
    assert_eq!(place.store.list().unwrap().images.len(), 0);
    drop(pending);
    assert_eq!(place.temporaries(), [""; 0], "given up, nothing is left");
}

/// The states in which `kill -9` can leave a pull of `debian:12` that replaces the image 1 by 2.
#[test]
fn at_each_step_a_killed_pull_leaves_the_old_image_or_the_new_one() {
    type Step<'a> = &'a dyn Fn(&Place, &Path);
    let squashfs: fn(&Place, &Path) = |_, aside| put(&aside.join("image.squashfs"), b"new i");
    let whole: fn(&Place, &Path) = |_, aside| {
        put(&aside.join("image.squashfs"), b"new image");
        let json = serde_json::to_vec(&metadata(&digest(2), 9)).unwrap();
        put(&aside.join("image.json"), json);
    };
    let name = Name {
        version: METADATA_VERSION,
        reference: reference("debian:12"),
        platform: amd64(),
        digest: digest(2),
        pulled: 1,
        admission: None,
        image: None,
    };
    let json = serde_json::to_vec(&name).unwrap();
    let cut_name = |place: &Place, content: &[u8]| {
        put(&place.root().join("tmp").join(format!("name,{},1", dead_label())), content);
    };
    let steps: [(&str, Step<'_>, u32); 7] = [
        ("the directory is made", &|_, aside| fs::create_dir(aside).unwrap(), 1),
        ("half of the squashfs file", &squashfs, 1),
        (
            "half of the metadata",
            &|place, aside| {
                whole(place, aside);
                put(&aside.join("image.json"), b"{\"version\": 1, ");
            },
            1,
        ),
        ("all is written aside", &whole, 1),
        ("the image is in place", &|place, _| drop(place.add(&digest(2), b"new image")), 1),
        (
            "half of the name",
            &|place, _| {
                place.add(&digest(2), b"new image");
                cut_name(place, &json[..20]);
            },
            1,
        ),
        (
            "the name is in place, the old image not yet marked",
            &|place, _| {
                place.add(&digest(2), b"new image");
                put(&place.name_file("docker.io+library+debian=12"), &json);
            },
            2,
        ),
    ];
    for (step, leave, want) in steps {
        let place = Place::new();
        place.add_named(&digest(1), "debian:12");
        let aside = place.root().join("tmp").join(format!("image,{},0", dead_label()));
        leave(&place, &aside);
        assert_eq!(place.lookup("debian:12"), Some(digest(want)), "{step}");
        place.check();

        place.store.sweep(DAY).unwrap();
        assert_eq!(place.temporaries(), [""; 0], "{step}");
        assert_eq!(place.lookup("debian:12"), Some(digest(want)), "{step}");

        place.add(&digest(2), b"new image");
        place.tag("debian:12", &digest(2)).unwrap();
        assert_eq!(place.lookup("debian:12"), Some(digest(2)), "{step}: the next pull succeeds");
        place.check();
        // What no name points at was marked by the first of these, and goes with the second.
        place.store.sweep(Duration::ZERO).unwrap();
        place.store.sweep(Duration::ZERO).unwrap();
        assert_eq!(place.store.image(&digest(1)).unwrap(), None, "{step}");
        assert_eq!(place.lookup("debian:12"), Some(digest(2)), "{step}");
    }
}

#[test]
fn at_each_step_a_killed_removal_leaves_no_name_and_no_half_image() {
    type Step<'a> = &'a dyn Fn(&Place);
    let name = "docker.io+library+debian=12";
    let steps: [(&str, Step<'_>); 3] = [
        ("the name is gone, the image not yet marked", &|place| {
            fs::remove_file(place.name_file(name)).unwrap();
        }),
        ("the image is marked", &|place| assert!(place.remove("debian:12", DAY).is_some())),
        ("the image is aside", &|place| {
            let aside = place.root().join("tmp").join(format!("removed,{},0", dead_label()));
            fs::rename(place.image_directory(&digest(1)), aside).unwrap();
        }),
    ];
    for (step, leave) in steps {
        let place = Place::new();
        place.add_named(&digest(1), "debian:12");
        place.add_named(&digest(2), "ubuntu:24.04");
        leave(&place);
        assert_eq!(place.lookup("debian:12"), None, "{step}");
        place.check();
        place.store.sweep(Duration::ZERO).unwrap();
        place.store.sweep(Duration::ZERO).unwrap();
        assert!(!place.image_directory(&digest(1)).exists(), "{step}");
        assert_eq!(place.temporaries(), [""; 0], "{step}");
        assert_eq!(place.lookup("ubuntu:24.04"), Some(digest(2)), "{step}");
        place.add_named(&digest(1), "debian:12");
        assert_eq!(place.lookup("debian:12"), Some(digest(1)), "{step}: pulled again");
    }
}

#[test]
fn only_what_dead_processes_left_is_swept() {
    let place = Place::new();
    let living = place.store.begin(&digest(1)).unwrap();
    let temporary = place.root().join("tmp");
    for (name, age) in [
        (format!("image,{},0", dead_label()), Duration::ZERO),
        (format!("name,{},1", dead_label()), Duration::ZERO),
        (format!("image,{},0", foreign_label()), Duration::ZERO),
        (format!("removed,{},0", foreign_label()), FOREIGN_AGE_MAX * 2),
        ("unknown".to_owned(), Duration::ZERO),
        ("older".to_owned(), FOREIGN_AGE_MAX * 2),
    ] {
        let path = temporary.join(&name);
        put(&path, b"");
        make_old(&path, age);
    }
    place.store.sweep(DAY).unwrap();
    let left = place.temporaries();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.contains(&format!("image,{},0", foreign_label())), "it may be alive");
    assert!(left.contains(&"unknown".to_owned()), "nobody of ours wrote it, it may be in use");
    let committed = {
        let mut file = living.file();
        file.write_all(b"x").unwrap();
        living.commit(&metadata(&digest(1), 1)).unwrap()
    };
    assert_eq!(committed.digest, digest(1));
}

#[test]
fn a_directory_that_is_still_written_to_on_another_node_is_not_old() {
    let place = Place::new();
    let aside = place.root().join("tmp").join(format!("image,{},0", foreign_label()));
    put(&aside.join("image.squashfs"), b"growing");
    make_old(&aside, FOREIGN_AGE_MAX * 2);
    place.store.sweep(DAY).unwrap();
    assert!(aside.exists());
    make_old(&aside.join("image.squashfs"), FOREIGN_AGE_MAX * 2);
    place.store.sweep(DAY).unwrap();
    assert!(!aside.exists());
}

// Two at once.

#[test]
fn of_two_writers_of_one_image_both_succeed_and_one_copy_stays() {
    let place = Place::new();
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let pending = place.store.begin(&digest(1)).unwrap();
                pending.file().write_all_at(b"same", 0).unwrap();
                barrier.wait();
                pending.commit(&metadata(&digest(1), 4)).unwrap();
                place.tag("debian:12", &digest(1)).unwrap();
            });
        }
    });
    assert_eq!(place.lookup("debian:12"), Some(digest(1)));
    assert_eq!(names_in(&place.root().join("images/v1")).len(), 1);
    assert_eq!(place.temporaries(), [""; 0]);
    place.check();
}

#[test]
fn of_several_writers_that_replace_a_damaged_image_all_succeed() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    put(&place.image_directory(&digest(1)).join("image.json"), b"");
    let barrier = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let pending = place.store.begin(&digest(1)).unwrap();
                barrier.wait();
                pending.commit(&metadata(&digest(1), 0)).unwrap();
            });
        }
    });
    assert_eq!(place.lookup("debian:12"), Some(digest(1)));
    assert_eq!(place.temporaries(), [""; 0]);
    place.check();
}

#[test]
fn readers_see_a_whole_image_while_its_name_moves() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    place.add(&digest(2), b"two");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for turn in 0..100 {
                place.tag("debian:12", &digest(1 + turn % 2)).unwrap();
            }
        });
        while !writer.is_finished() {
            let image = place.store.lookup(&reference("debian:12"), &amd64()).unwrap().unwrap();
            assert!([digest(1), digest(2)].contains(&image.digest));
        }
    });
}

#[test]
fn pulls_and_removals_of_one_name_at_once_leave_a_store_that_works() {
    let place = Place::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                let pending = place.store.begin(&digest(1)).unwrap();
                let committed = pending.commit(&metadata(&digest(1), 0));
                match committed.and_then(|_| place.tag("debian:12", &digest(1))) {
                    Ok(()) | Err(StoreError::Vanished { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
        scope.spawn(|| {
            for turn in 0..50 {
                let grace = if turn % 2 == 0 { DAY } else { Duration::ZERO };
                place.store.remove(&reference("debian:12"), &amd64(), grace).unwrap();
            }
        });
    });
    place.check();
    place.add_named(&digest(1), "debian:12");
    assert_eq!(place.lookup("debian:12"), Some(digest(1)));
    place.store.sweep(Duration::ZERO).unwrap();
    assert_eq!(place.lookup("debian:12"), Some(digest(1)));
    assert_eq!(place.temporaries(), [""; 0]);
}

// Removal.

#[test]
fn with_one_of_several_names_the_image_stays_and_with_the_last_it_goes() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    place.tag("debian:bookworm", &digest(1)).unwrap();
    assert_eq!(place.remove("debian:12", Duration::ZERO), Some(Removal::NameOnly));
    assert_eq!(place.lookup("debian:12"), None);
    assert_eq!(place.lookup("debian:bookworm"), Some(digest(1)));
    assert_eq!(place.remove("debian:12", Duration::ZERO), None, "there is no such name any more");
    assert_eq!(place.remove("debian:bookworm", Duration::ZERO), Some(Removal::Deleted));
    assert!(!place.image_directory(&digest(1)).exists());
    assert_eq!(names_in(&place.root().join("names")), [""; 0]);
}

#[test]
fn a_file_that_jobs_use_stays_for_the_grace_period_and_can_be_read_after_it_was_deleted() {
    let place = Place::new();
    let image = place.add_named(&digest(1), "debian:12");
    let mut used = fs::File::open(&image.squashfs).unwrap();
    assert_eq!(place.remove("debian:12", DAY), Some(Removal::Deferred(DAY)));
    assert_eq!(place.lookup("debian:12"), None);
    assert_eq!(place.store.list().unwrap().images.len(), 0, "it is not listed");
    place.store.sweep(DAY).unwrap();
    assert!(image.squashfs.exists(), "the period has not passed");
    make_old(&place.image_directory(&digest(1)).join("removed"), DAY * 2);
    place.store.sweep(DAY).unwrap();
    assert!(!place.image_directory(&digest(1)).exists());
    let mut content = String::new();
    used.read_to_string(&mut content).unwrap();
    assert_eq!(content, "debian:12", "on this node the open file lasts");
}

#[test]
fn an_image_that_gets_a_name_again_is_not_removed() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    place.remove("debian:12", DAY);
    place.tag("debian:again", &digest(1)).unwrap();
    place.store.sweep(Duration::ZERO).unwrap();
    assert_eq!(place.lookup("debian:again"), Some(digest(1)));

    // A mark that a killed command set after the name was given, or did not take away.
    put(&place.image_directory(&digest(1)).join("removed"), b"");
    assert_eq!(place.lookup("debian:again"), Some(digest(1)));
    let by_digest = format!("debian@{}", digest(1));
    assert_eq!(place.lookup(&by_digest), Some(digest(1)), "by its digest, too");
    assert_eq!(place.store.list().unwrap().images.len(), 1);
    place.store.sweep(Duration::ZERO).unwrap();
    assert_eq!(place.lookup("debian:again"), Some(digest(1)));
    assert!(!place.image_directory(&digest(1)).join("removed").exists());
}

#[test]
fn an_image_that_a_killed_pull_did_not_name_is_not_listed_by_who_marks_it() {
    let place = Place::new();
    place.add(&digest(1), b"nameless");
    assert_eq!(place.store.list().unwrap().images.len(), 1, "who only reads shows it");
    let listing = place.store.sweep_and_list(DAY).unwrap();
    assert!(place.image_directory(&digest(1)).join("removed").exists());
    assert_eq!(listing.images.len(), 0, "it cannot be run from now on");
    assert_eq!(place.lookup(&format!("debian@{}", digest(1))), None);
}

#[test]
fn an_image_whose_last_name_moved_is_removed_after_the_grace_period() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    place.add_named(&digest(2), "debian:12");
    assert!(place.image_directory(&digest(1)).join("removed").exists());
    assert_eq!(place.store.list().unwrap().images.len(), 1);
    place.store.sweep(Duration::ZERO).unwrap();
    assert_eq!(place.store.image(&digest(1)).unwrap(), None);
    assert_eq!(place.lookup("debian:12"), Some(digest(2)));
}

#[test]
fn an_image_removed_by_its_digest_loses_all_names() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    place.tag("debian:bookworm", &digest(1)).unwrap();
    place.add_named(&digest(2), "ubuntu:24.04");
    let removal = place.store.remove_image(&digest(1), Duration::ZERO).unwrap();
    assert_eq!(removal, Removal::Deleted);
    let listing = place.store.list().unwrap();
    assert_eq!(listing.names.len(), 1);
    assert_eq!(place.lookup("ubuntu:24.04"), Some(digest(2)));
    let again = place.store.remove_image(&digest(1), Duration::ZERO).unwrap();
    assert_eq!(again, Removal::Deleted, "removing what is gone succeeds");
}

#[test]
fn an_image_that_is_not_there_gets_no_name() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    let before = snapshot(place.root());
    let error = place.tag("debian:12", &digest(2)).unwrap_err();
    assert!(matches!(error, StoreError::Vanished { .. }), "{error}");
    assert_eq!(error.hint().as_deref(), Some("run the command again"));
    assert_eq!(snapshot(place.root()), before);
}

// Damage.

#[test]
fn a_damaged_image_is_one_clear_error_and_hides_no_other() {
    let newer = json_with_version(serde_json::to_value(metadata(&digest(1), 9)).unwrap(), 99);
    type Damage<'a> = &'a dyn Fn(&Path);
    let rows: [(Damage<'_>, &str, bool); 6] = [
        (&|image| put(&image.join("image.json"), b"{ no json"), "image.json` is damaged", true),
        (
            &|image| put(&image.join("image.json"), b"{\"version\":1}"),
            "image.json` is damaged",
            true,
        ),
        (&|image| put(&image.join("image.json"), b""), "image.json` is damaged", true),
        (
            &|image| put(&image.join("image.json"), &newer),
            "image.json` has format version 99, this program reads up to 1",
            false,
        ),
        (
            &|image| put(&image.join("image.squashfs"), b"cut"),
            "image.squashfs` is damaged: 3 bytes, its metadata says 9",
            true,
        ),
        (
            &|image| fs::remove_file(image.join("image.squashfs")).unwrap(),
            "image.squashfs` is damaged: 0 bytes, its metadata says 9",
            true,
        ),
    ];
    for (damage, want, by_pull) in rows {
        let place = Place::new();
        place.add_named(&digest(1), "debian:12");
        place.add_named(&digest(2), "ubuntu:24.04");
        damage(&place.image_directory(&digest(1)));
        let error = place.store.lookup(&reference("debian:12"), &amd64()).unwrap_err();
        assert!(error.to_string().ends_with(want), "{error}");
        assert_eq!(error.is_damage(), by_pull, "{want}");
        assert!(!error.is_full());
        let hint = error.hint().unwrap();
        assert_eq!(hint.contains("sarus pull"), by_pull, "{hint}");
        assert_eq!(place.lookup("ubuntu:24.04"), Some(digest(2)), "{want}");
        let listing = place.store.list().unwrap();
        assert_eq!(listing.images.keys().collect::<Vec<_>>(), [&digest(2)], "{want}");
        assert_eq!(listing.damaged.len(), 1, "{want}");
        if by_pull {
            place.add_named(&digest(1), "debian:12");
            assert_eq!(place.lookup("debian:12"), Some(digest(1)), "written anew");
            assert_eq!(place.temporaries(), [""; 0]);
        }
        assert!(place.remove("debian:12", Duration::ZERO).is_some(), "it can be removed: {want}");
        assert!(!place.image_directory(&digest(1)).exists());
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a tool that makes a pipe, by its exit status")]
fn a_pipe_in_the_place_of_a_file_is_damage_and_nobody_waits_for_it() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    place.add_named(&digest(2), "ubuntu:24.04");
    let name = place.name_file("docker.io+library+debian=12");
    let metadata = place.image_directory(&digest(2)).join("image.json");
    for path in [&name, &metadata] {
        fs::remove_file(path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }
    for image in ["debian:12", "ubuntu:24.04"] {
        assert!(place.store.lookup(&reference(image), &amd64()).unwrap_err().is_damage());
    }
    assert_eq!(place.store.list().unwrap().damaged.len(), 2);
}

fn json_with_version(mut json: serde_json::Value, version: u32) -> Vec<u8> {
    json["version"] = version.into();
    serde_json::to_vec(&json).unwrap()
}

#[test]
fn a_damaged_name_is_one_clear_error_and_a_pull_or_a_removal_mends_it() {
    let long = vec![b' '; 70_000];
    for (content, want) in [
        (b"{".as_slice(), "linux-amd64` is damaged"),
        (b"[]", "linux-amd64` is damaged"),
        (b"{\"version\":1,\"reference\":7}", "linux-amd64` is damaged"),
        (&long, "linux-amd64` is damaged: 70000 bytes, at most 65536 are expected"),
    ] {
        let place = Place::new();
        place.add_named(&digest(1), "debian:12");
        place.add_named(&digest(2), "ubuntu:24.04");
        let path = place.name_file("docker.io+library+debian=12");
        put(&path, content);
        let error = place.store.lookup(&reference("debian:12"), &amd64()).unwrap_err();
        assert!(error.to_string().ends_with(want), "{error}");
        assert!(error.is_damage());
        let listing = place.store.list().unwrap();
        assert_eq!((listing.names.len(), listing.images.len(), listing.damaged.len()), (1, 2, 1));
        assert_eq!(place.lookup("ubuntu:24.04"), Some(digest(2)));

        place.tag("debian:12", &digest(1)).unwrap();
        assert_eq!(place.lookup("debian:12"), Some(digest(1)));
        put(&path, content);
        assert_eq!(place.remove("debian:12", DAY), Some(Removal::NameOnly));
        assert!(!path.exists());
        place.store.sweep(DAY).unwrap();
        assert!(place.image_directory(&digest(1)).join("removed").exists(), "its image follows");
    }
}

#[test]
fn a_name_of_a_newer_version_may_mean_any_image_so_none_is_deleted() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    place.add_named(&digest(2), "ubuntu:24.04");
    let name = place.store.name(&reference("ubuntu:24.04"), &amd64()).unwrap().unwrap();
    let path = place.name_file("docker.io+library+ubuntu=24.04");
    put(&path, json_with_version(serde_json::to_value(&name).unwrap(), 2));
    let error = place.store.lookup(&reference("ubuntu:24.04"), &amd64()).unwrap_err();
    assert!(error.to_string().contains("has format version 2"), "{error}");
    assert_eq!(error.hint().as_deref(), Some("use the version of sarus that wrote it"));
    assert_eq!(place.remove("debian:12", Duration::ZERO), Some(Removal::NameOnly));
    place.store.sweep(Duration::ZERO).unwrap();
    place.store.sweep(Duration::ZERO).unwrap();
    for number in [1, 2] {
        assert!(place.store.image(&digest(number)).unwrap().is_some(), "image {number}");
    }
    place.store.remove(&reference("ubuntu:24.04"), &amd64(), DAY).unwrap_err();
    assert!(path.exists());
}

#[test]
fn what_is_not_a_stores_is_left_alone() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    let foreign = [
        "README",
        "images/v1/notes",
        "images/v2/sha256-00/x",
        "blobs/notes",
        "names/file",
        "names/a/b",
    ];
    for path in foreign {
        put(&place.root().join(path), b"mine");
    }
    place.store.sweep(Duration::ZERO).unwrap();
    place.store.blobs().trim(0).unwrap();
    for path in foreign {
        assert!(place.root().join(path).exists(), "{path}");
    }
    place.check();
}

// Refusals.

#[test]
fn a_read_only_store_is_read_and_refuses_every_change() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    let before = snapshot(place.root());
    let store = Store::open_read_only(place.root());
    assert!(store.is_read_only());
    let (name, platform) = (reference("debian:12"), amd64());
    assert!(store.lookup(&name, &platform).unwrap().is_some());
    assert_eq!(store.list().unwrap().images.len(), 1);
    let refused: [Result<(), StoreError>; 6] = [
        store.begin(&digest(2)).map(drop),
        store.tag(&name, &platform, &digest(1)),
        store.remove(&name, &platform, DAY).map(drop),
        store.remove_image(&digest(1), DAY).map(drop),
        store.sweep(DAY),
        store.blobs().begin(&digest(1)).map(drop),
    ];
    for result in refused {
        let error = result.unwrap_err();
        let want = format!("the image store `{}` is for reading only", place.root().display());
        assert_eq!(error.to_string(), want);
        assert!(error.hint().unwrap().contains("--centralized-repository"));
    }
    assert_eq!(snapshot(place.root()), before);
}

#[test]
fn a_place_that_cannot_hold_a_store_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    put(&file, b"");
    let store = Store::open(file.join("sarus"));
    let error = store.begin(&digest(1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot create the directory `{}`", file.join("sarus").display())
    );
    assert!(error.source().is_some());
    assert!(error.hint().unwrap().contains("is a file where a directory is needed"));
    let error = store.lookup(&reference("debian:12"), &amd64()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read `"), "{error}");
    assert!(!error.is_damage());
    assert_eq!(names_in(directory.path()), ["file"]);
}

#[test]
fn a_directory_without_rights_is_one_error_and_nothing_is_left() {
    let place = Place::new();
    place.add_named(&digest(1), "debian:12");
    let images = place.root().join("images/v1");
    let pending = place.store.begin(&digest(2)).unwrap();
    fs::set_permissions(&images, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::File::create_new(images.join("probe")).is_ok() {
        return; // root's right to everything cannot be taken away here
    }
    let error = pending.commit(&metadata(&digest(2), 0)).unwrap_err();
    assert!(matches!(error, StoreError::Publish { .. }), "{error}");
    assert!(error.hint().unwrap().starts_with("you have no right to do this there"));
    assert_eq!(place.temporaries(), [""; 0]);
    assert_eq!(place.lookup("debian:12"), Some(digest(1)));
    fs::set_permissions(&images, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn each_answer_of_the_system_has_its_advice() {
    let path = PathBuf::from("/store/images");
    let failed = |errno| StoreError::Write {
        path: path.clone(),
        source: io::Error::from_raw_os_error(errno),
    };
    for (errno, full, want) in [
        (28, true, "the file system is full: `sarus prune` frees space"),
        (122, true, "your quota is used up: `sarus prune` frees space"),
        (30, false, "the file system is mounted read-only"),
        (13, false, "you have no right to do this there"),
        (1, false, "you have no right to do this there"),
        (20, false, "a part of `/store/images` is a file"),
        (18, false, "`images`, `names`, `blobs` and `tmp` of a store must be on one file system"),
        (116, false, "another node replaced it; run the command again"),
    ] {
        let error = failed(errno);
        assert_eq!(error.to_string(), "cannot write `/store/images`");
        assert!(error.hint().unwrap().starts_with(want), "{errno}: {:?}", error.hint());
        assert_eq!(error.is_full(), full, "{errno}");
    }
    assert_eq!(failed(5).hint(), None);
}

#[test]
fn an_image_of_another_length_than_its_metadata_says_never_gets_in() {
    let place = Place::new();
    let pending = place.store.begin(&digest(1)).unwrap();
    pending.file().write_all_at(b"cut", 0).unwrap();
    let error = pending.commit(&metadata(&digest(1), 9)).unwrap_err();
    assert!(error.to_string().ends_with("is damaged: 3 bytes, its metadata says 9"), "{error}");
    assert_eq!(place.store.image(&digest(1)).unwrap(), None);
    assert_eq!(place.temporaries(), [""; 0]);
}

#[test]
fn a_failed_commit_leaves_nothing_of_the_image() {
    let place = Place::new();
    let pending = place.store.begin(&digest(1)).unwrap();
    put(&place.root().join("images/v1").join(format!("sha256-{}", digest(1).hex())), b"a file");
    let error = pending.commit(&metadata(&digest(1), 0)).unwrap_err();
    assert!(matches!(error, StoreError::Publish { .. }), "{error}");
    assert_eq!(place.temporaries(), [""; 0]);
}

// Blobs.

fn stored(place: &Place, content: &[u8]) -> Digest {
    let digest = Digest::sha256_of(content);
    let mut partial = place.store.blobs().begin(&digest).unwrap();
    partial.append(content).unwrap();
    partial.finish().unwrap();
    digest
}

#[test]
fn a_finished_blob_is_found_by_its_digest_and_can_be_removed() {
    let place = Place::new();
    let digest = stored(&place, b"layer");
    let mut content = Vec::new();
    place.store.blobs().open(&digest).unwrap().unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, b"layer");
    assert_eq!(place.blobs(), [format!("sha256-{}", digest.hex())]);
    place.store.blobs().remove(&digest).unwrap();
    assert!(place.store.blobs().open(&digest).unwrap().is_none());
}

#[test]
fn a_blob_given_up_is_continued_by_the_next() {
    let place = Place::new();
    let digest = Digest::sha256_of(b"layer");
    let blobs = place.store.blobs();
    let mut partial = blobs.begin(&digest).unwrap();
    assert!(partial.is_empty());
    partial.append(b"la").unwrap();
    drop(partial);
    assert!(blobs.open(&digest).unwrap().is_none(), "it is not verified");
    assert_eq!(place.blobs(), [format!("sha256-{}.partial", digest.hex())]);
    let mut partial = blobs.begin(&digest).unwrap();
    assert_eq!(partial.len(), 2);
    partial.append(b"yer").unwrap();
    let mut read = [0; 5];
    partial.file().read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"layer");
    partial.finish().unwrap();
    assert_eq!(place.blobs(), [format!("sha256-{}", digest.hex())]);
}

#[test]
fn a_blob_begun_anew_or_found_wrong_keeps_nothing_of_before() {
    let place = Place::new();
    let digest = Digest::sha256_of(b"layer");
    let blobs = place.store.blobs();
    for taken_over in [false, true] {
        let mut partial = blobs.begin(&digest).unwrap();
        assert_eq!(!partial.is_empty(), taken_over);
        partial.append(b"wrong").unwrap();
        partial.clear().unwrap();
        assert!(partial.is_empty());
        partial.append(b"right").unwrap();
        let mut read = [0; 5];
        partial.file().read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"right");
        assert_eq!(partial.file().metadata().unwrap().len(), 5);
    }
    blobs.begin(&digest).unwrap().discard();
    assert_eq!(place.blobs(), [""; 0]);
    drop(blobs.begin(&digest).unwrap());
    assert_eq!(place.blobs(), [""; 0], "an empty beginning is worth nothing");
}

#[test]
fn two_downloads_of_one_blob_do_not_mix() {
    let place = Place::new();
    let digest = Digest::sha256_of(b"layer");
    let blobs = place.store.blobs();
    let (mut one, mut two) = (blobs.begin(&digest).unwrap(), blobs.begin(&digest).unwrap());
    one.append(b"lay").unwrap();
    two.append(b"layer").unwrap();
    one.append(b"er").unwrap();
    one.finish().unwrap();
    two.finish().unwrap();
    assert_eq!(place.blobs(), [format!("sha256-{}", digest.hex())]);
    let mut content = Vec::new();
    blobs.open(&digest).unwrap().unwrap().read_to_end(&mut content).unwrap();
    assert_eq!(content, b"layer");
}

#[test]
fn the_beginning_that_a_killed_download_left_is_continued_and_a_living_ones_is_not() {
    let place = Place::new();
    let (dead, living) = (digest(1), digest(2));
    let file = |digest: &Digest, label: &str| {
        place.root().join("blobs").join(format!("sha256-{}.partial,{label},0", digest.hex()))
    };
    put(&file(&dead, &dead_label()), b"half");
    put(&file(&living, &foreign_label()), b"half");
    place.store.sweep(DAY).unwrap();
    assert_eq!(place.store.blobs().begin(&dead).unwrap().len(), 4);
    assert_eq!(place.store.blobs().begin(&living).unwrap().len(), 0);
    assert!(file(&living, &foreign_label()).exists());
}

#[test]
fn the_cache_is_bounded_by_what_was_not_used_for_longest() {
    let place = Place::new();
    let blobs = place.store.blobs();
    let [old, used, young] = [b"aaaa", b"bbbb", b"cccc"].map(|content| stored(&place, content));
    let path = |digest: &Digest| place.root().join(format!("blobs/sha256-{}", digest.hex()));
    make_old(&path(&old), DAY * 2);
    make_old(&path(&used), DAY * 3);
    make_old(&path(&young), DAY);
    drop(blobs.open(&used).unwrap());
    let mut writing = blobs.begin(&digest(7)).unwrap();
    writing.append(b"much more than the limit").unwrap();
    blobs.trim(12).unwrap();
    assert_eq!(place.blobs().len(), 4, "what is being written is not counted");
    blobs.trim(8).unwrap();
    assert!(!path(&old).exists() && path(&used).exists() && path(&young).exists());
    blobs.trim(4).unwrap();
    assert!(path(&used).exists() && !path(&young).exists(), "it was opened last");
    drop(writing);
    blobs.trim(0).unwrap();
    assert_eq!(place.blobs(), [""; 0], "beginnings are bounded as well");
}

#[test]
fn a_short_name_means_the_full_one_that_was_found_until_docker_io_s_is_given() {
    let place = Place::new();
    let (elsewhere, here) = (digest(1), digest(2));
    place.add_named(&elsewhere, "site.org/img:1");
    let remember = |found: &str| {
        place.store.remember_short((&reference("img:1"), &amd64()), &reference(found)).unwrap();
    };
    remember("site.org/img:1");
    assert_eq!(place.lookup("img:1"), Some(elsewhere.clone()));
    assert_eq!(place.lookup("docker.io/library/img:1"), None);
    assert_eq!(place.lookup("img:2"), None);
    // Under its full name docker.io's is another image, which leaves the short one as it is.
    place.add_named(&here, "docker.io/library/img:1");
    assert_eq!(place.lookup("img:1"), Some(elsewhere.clone()));
    // Given to the short name (by `load`, or a pull from docker.io), it is what that means.
    place.tag("img:1", &here).unwrap();
    assert_eq!(place.lookup("img:1"), Some(here.clone()));
    assert_eq!(place.lookup("site.org/img:1"), Some(elsewhere.clone()));
    remember("site.org/img:1");
    remember("docker.io/library/img:1");
    assert_eq!(place.lookup("img:1"), Some(here));
    place.check();
}

#[test]
fn a_short_name_goes_with_the_full_one_and_never_to_another_image() {
    let place = Place::new();
    let (elsewhere, here) = (digest(1), digest(2));
    let records = || names_in(&place.root().join("short-names"));
    let short = reference("img:1");
    for name in ["img:1", "site.org/img:1", &elsewhere.to_string()] {
        place.add_named(&elsewhere, "site.org/img:1");
        place.add_named(&here, "docker.io/library/img:1");
        let full = reference("site.org/img:1");
        place.store.remember_short((&short, &amd64()), &full).unwrap();
        assert_eq!(records(), ["img=1,linux-amd64"]);
        if name.starts_with("sha256:") {
            place.store.remove_image(&elsewhere, Duration::ZERO).unwrap();
        } else {
            assert_eq!(place.remove(name, Duration::ZERO), Some(Removal::Deleted));
        }
        assert_eq!(records(), [""; 0], "{name}");
        assert_eq!(place.lookup("site.org/img:1"), None, "{name}");
        assert_eq!(place.lookup("docker.io/library/img:1"), Some(here.clone()), "{name}");
    }
    // One whose full name another node removed leads to nothing, until it is pulled again.
    place.store.remember_short((&short, &amd64()), &reference("site.org/img:1")).unwrap();
    assert_eq!(place.lookup("img:1"), None);
    assert_eq!(place.remove("img:1", Duration::ZERO), None);
    // A damaged one is an error and can be removed.
    fs_err::write(place.root().join("short-names/img=1,linux-amd64"), "{").unwrap();
    assert!(place.store.lookup(&short, &amd64()).unwrap_err().is_damage());
    assert_eq!(place.remove("img:1", Duration::ZERO), Some(Removal::NameOnly));
    assert_eq!(place.lookup("img:1"), Some(here));
}

#[test]
fn a_name_whose_image_is_gone_goes_once_nobody_is_about_to_bring_it_back() {
    let place = Place::new();
    let (kept, young, old) = (digest(1), digest(2), digest(3));
    for (digest, name) in [(&kept, "kept"), (&young, "young"), (&old, "old")] {
        place.add_named(digest, &format!("site.org/{name}:1"));
    }
    let names = || names_in(&place.root().join("names"));
    let file = |name: &str| place.root().join(format!("names/site.org+{name}=1,linux-amd64"));
    for name in ["kept", "old"] {
        let json = fs_err::read_to_string(file(name)).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["pulled"] = (json["pulled"].as_u64().unwrap() - 100).into();
        fs_err::write(file(name), json.to_string()).unwrap();
    }
    let short = (&reference("old:1"), &amd64());
    place.store.remember_short(short, &reference("site.org/old:1")).unwrap();
    for digest in [&young, &old] {
        let directory = digest.to_string().replace(':', "-");
        fs_err::remove_dir_all(place.root().join("images/v1").join(directory)).unwrap();
    }
    place.store.sweep_and_list(DAY).unwrap();
    assert_eq!(names(), ["site.org+kept=1,linux-amd64", "site.org+young=1,linux-amd64"]);
    assert_eq!(names_in(&place.root().join("short-names")), [""; 0], "it means nothing any more");
    assert_eq!(place.lookup("site.org/kept:1"), Some(kept));
    // A store whose images are all out of reach loses no name.
    fs_err::rename(place.root().join("images/v1"), place.root().join("away")).unwrap();
    place.store.sweep(DAY).unwrap();
    assert_eq!(names().len(), 2);
    place.check();
}
