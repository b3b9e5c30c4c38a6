//! An image unpacked into a directory: the tree again, all of it the caller's.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use sarus_squash::{Kind, Metadata, UnpackError, UnpackOptions, Unpacked, unpack};

use super::file_of;
use super::sample::{Found, Part, Sample, What, metadata, noise, settings};

fn unpack_to(image: &File, target: &Path, threads: usize) -> Result<Unpacked, UnpackError> {
    let target = File::open(target).unwrap();
    let threads = NonZeroUsize::new(threads).unwrap();
    unpack(image, target.as_fd(), &UnpackOptions { threads })
}

/// Lets its owner enter and change all directories.
pub(super) fn make_removable(directory: &Path) {
    std::fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            make_removable(&entry.path());
        }
    }
}

/// What is in a directory, as its owner sees it: attributes are left out.
fn list(top: &Path) -> BTreeMap<Vec<u8>, Found> {
    let mut all = BTreeMap::new();
    let mut inodes: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let met = path.symlink_metadata().unwrap();
        let mode = u16::try_from(met.mode() & 0o7777).unwrap();
        let kind = met.file_type();
        let what = if kind.is_dir() {
            // An ordinary user cannot look into what has no permissions.
            std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            What::Directory
        } else if kind.is_symlink() {
            What::Symlink(std::fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec())
        } else if kind.is_fifo() {
            What::Fifo
        } else if kind.is_socket() {
            What::Socket
        } else {
            assert!(kind.is_file());
            if mode & 0o400 == 0 {
                std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            }
            What::File(std::fs::read(&path).unwrap())
        };
        let name = path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec();
        inodes.entry(met.ino()).or_default().push(name.clone());
        let (owner, xattrs) = ((met.uid(), met.gid()), Vec::new());
        let mtime = met.mtime().try_into().unwrap();
        let links = if what == What::Directory { 0 } else { met.nlink().try_into().unwrap() };
        all.insert(name, Found { what, mode, owner, mtime, xattrs, links, first: Vec::new() });
    }
    for mut names in inodes.into_values() {
        names.sort();
        for name in &names {
            all.get_mut(name).unwrap().first.clone_from(&names[0]);
        }
    }
    all
}

fn sample() -> Sample {
    let mut sample = Sample::new();
    let directory = || Kind::Directory(Box::default());
    let with = |mode, mtime| Metadata { mode, mtime, uid: 77, gid: 88, ..metadata() };
    sample.tree.node_mut(sarus_squash::Tree::ROOT).metadata = with(0o711, 5);
    sample.add_with("closed", directory(), with(0, 1_000_000_000));
    sample.add_with("closed/read-only", directory(), with(0o555, u32::MAX / 2));
    sample.add_with("closed/read-only/deep", directory(), with(0o1700, 3));
    for (path, mode, bytes) in [
        ("closed/read-only/deep/f", 0o400, noise(100_000, 1)),
        ("closed/read-only/text", 0o4755, b"text".repeat(3000)),
        ("empty", 0, Vec::new()),
    ] {
        let kind = sample.content(vec![Part::Bytes(bytes)]);
        sample.add_with(path, kind, with(mode, 1_234_567_890));
    }
    let parts = vec![Part::Zeros(30_000), Part::Bytes(b"x".to_vec()), Part::Zeros(50_000)];
    let kind = sample.content(parts);
    let sparse = sample.add_with("sparse", kind, with(0o640, 9));
    sample.link("closed/read-only/sparse again", sparse);
    let link =
        sample.add_with("link", Kind::Symlink(b"/etc/../nowhere\xff"[..].into()), with(0o777, 11));
    sample.link("closed/link again", link);
    // A link that leads out, and what would be written through it if anything were.
    sample.add_with("out", Kind::Symlink(b".."[..].into()), with(0o777, 14));
    sample.add_with("pipe", Kind::Fifo, with(0o622, 12));
    sample.add_with("socket", Kind::Socket, with(0o755, 13));
    let name = sample.file("x", b"odd name".to_vec());
    sample.link_in("closed", b"\xff\n", name);
    sample
}

#[test]
fn an_unpacked_image_is_the_tree() {
    let sample = sample();
    let own = tempfile::tempdir().unwrap();
    let owner = own.path().metadata().map(|met| (met.uid(), met.gid())).unwrap();
    let mut expected = sample.expected();
    let names = expected.len() as u64 - 1;
    for found in expected.values_mut() {
        found.owner = owner;
        if found.what == What::Directory {
            found.links = 0;
        }
    }
    for (compression, block_size, threads) in
        [("zstd", 4096, 1), ("gzip", 1 << 17, 3), ("lz4", 1 << 20, 2), ("none", 8192, 2)]
    {
        let (image, _written) = sample.write(&settings(compression, block_size, 1));
        let target = tempfile::tempdir_in(own.path()).unwrap();
        let unpacked = unpack_to(&image, target.path(), threads).unwrap();
        let root = target.path().metadata().unwrap();
        assert_eq!((root.mode() & 0o7777, root.mtime()), (0o711, 5));
        let found = list(target.path());
        make_removable(target.path());
        for (path, want) in &expected {
            // Not by assert_eq: contents are long.
            assert!(found.get(path) == Some(want), "{}", path.escape_ascii());
        }
        assert_eq!(found.len(), expected.len());
        let bytes = 100_000 + 12_000 + 80_001 + 8;
        assert_eq!(unpacked, Unpacked { entries: names, bytes, skipped_devices: 0 });
    }
}

#[test]
fn holes_stay_holes() {
    let mut sample = Sample::new();
    let kind = sample.content(vec![Part::Zeros(64 << 20), Part::Bytes(b"x".to_vec())]);
    sample.add("f", kind);
    let (image, _written) = sample.write(&settings("zstd", 1 << 17, 1));
    let target = tempfile::tempdir().unwrap();
    unpack_to(&image, target.path(), 1).unwrap();
    let met = target.path().join("f").metadata().unwrap();
    assert_eq!(met.len(), (64 << 20) + 1);
    assert!(met.blocks() * 512 < 4 << 20, "{} blocks", met.blocks());
}

#[test]
fn devices_that_cannot_be_made_are_counted() {
    let mut sample = Sample::new();
    // No kernel lets an ordinary user make this one; where root runs the tests it is made.
    let device = sample.add("device", Kind::CharDevice { major: 1, minor: 3 });
    sample.link("device again", device);
    sample.file("f", b"x".to_vec());
    let (image, _written) = sample.write(&settings("zstd", 4096, 1));
    let target = tempfile::tempdir().unwrap();
    let Unpacked { entries, skipped_devices, .. } = unpack_to(&image, target.path(), 1).unwrap();
    let made = std::fs::read_dir(target.path()).unwrap().count();
    assert_eq!(std::fs::read(target.path().join("f")).unwrap(), b"x");
    match skipped_devices {
        0 => assert_eq!((entries, made), (3, 3)),
        _ => assert_eq!(made, 1),
    }
}

#[test]
fn a_directory_that_is_not_empty_is_not_overwritten() {
    let (image, _written) = sample().write(&settings("zstd", 4096, 1));
    let target = tempfile::tempdir().unwrap();
    fs_err::write(target.path().join("empty"), "precious").unwrap();
    let error = unpack_to(&image, target.path(), 1).unwrap_err();
    assert_eq!(error.to_string(), "cannot create `empty`");
    assert_eq!(std::fs::read(target.path().join("empty")).unwrap(), b"precious");
    make_removable(target.path());
}

#[test]
fn what_is_no_image_is_not_unpacked() {
    let target = tempfile::tempdir().unwrap();
    let error = unpack_to(&file_of(b"a text"), target.path(), 1).unwrap_err();
    assert!(matches!(error, UnpackError::Image(_)), "{error}");
    assert_eq!(std::fs::read_dir(target.path()).unwrap().count(), 0);
}
