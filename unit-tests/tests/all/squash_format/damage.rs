//! Images that are cut off, altered, or made to hurt: an answer or an error, always.

use std::fs::File;
use std::os::unix::fs::FileExt;

use sarus_squash::{ImageReader, ReadError, UnpackOptions, probe, unpack};

use super::sample::{Sample, metadata, noise, random, read_all, settings};
use super::{bytes, file_of};
use sarus_squash::{Image, Kind, Metadata};

/// Small, so that most of its bytes matter, with a bit of everything.
pub(super) fn small(compression: &str) -> Vec<u8> {
    let mut sample = Sample::new();
    sample.add("d", Kind::Directory(Box::default()));
    sample.file("d/noise", noise(9000, 1));
    sample.file("d/text", b"text ".repeat(1000));
    sample.file("d/zeros", vec![0; 20_000]);
    let xattrs = vec![
        (b"security.capability"[..].into(), b"\x01\0\0\x02"[..].into()),
        (b"user.a"[..].into(), noise(300, 2).into()),
    ];
    let attributes = Metadata { xattrs: Some(xattrs.into()), uid: 5, ..metadata() };
    let link = sample.add_with("d/link", Kind::Symlink(b"target"[..].into()), attributes);
    sample.link("hard", link);
    sample.add("pipe", Kind::Fifo);
    for index in 0..40 {
        sample.file(&format!("d/small file {index}"), vec![b's'; index]);
    }
    bytes(&sample.write(&settings(compression, 4096, 1)).0)
}

/// All ways of reading: each ends with an answer or an error.
fn read_in_all_ways(file: &File) -> Result<(), ReadError> {
    let walked = read_all(file, None).map(drop);
    let image = Image::open(file)?;
    let mut count = 0;
    ImageReader::new(&image)?.for_each_inode(|_inode| count += 1)?;
    walked
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for compression in ["zstd", "none"] {
        let good = small(compression);
        let used: usize = probe(&file_of(&good)).unwrap().bytes_used.try_into().unwrap();
        let file = file_of(&good);
        for length in (0..used).rev().step_by(17).chain(0..200) {
            file.set_len(length.try_into().unwrap()).unwrap();
            file.write_all_at(&good[..length], 0).unwrap();
            let error = read_in_all_ways(&file).unwrap_err();
            match (length, &error) {
                (0..4, ReadError::NotSquashfs { .. }) | (4..96, _) => {}
                (96.., &ReadError::Truncated { expected, found }) => {
                    assert_eq!((expected, found), (used as u64, length as u64));
                    assert_eq!(error.hint().as_deref(), Some("fetch the image again"));
                }
                _ => panic!("{length}: {error}"),
            }
        }
        file.write_all_at(&good, 0).unwrap();
        read_in_all_ways(&file).unwrap();
    }
}

/// Calls `take` with images of which some bytes are others.
pub(super) fn with_flips(good: &[u8], rounds: u64, mut take: impl FnMut(u64, &File)) {
    let superblock = probe(&file_of(good)).unwrap();
    let used: usize = superblock.bytes_used.try_into().unwrap();
    // Data blocks are at the front, and take most of the room.
    let tables = used.saturating_sub(4000);
    let file = file_of(good);
    let mut state = 7;
    for round in 0..rounds {
        for _ in 0..=random(&mut state) % 3 {
            let at = match round % 4 {
                0 => random(&mut state) % 96,
                1 => random(&mut state) % used,
                _ => tables + random(&mut state) % (used - tables),
            };
            let byte = match round % 3 {
                0 => 0xff,
                1 => good[at] ^ 1 << (random(&mut state) % 8),
                _ => random(&mut state).to_le_bytes()[0],
            };
            file.write_all_at(&[byte], at.try_into().unwrap()).unwrap();
        }
        take(round, &file);
        file.write_all_at(good, 0).unwrap();
    }
}

#[test]
fn altered_bytes_are_an_answer_or_an_error() {
    for (compression, rounds) in [("none", 6000), ("zstd", 1500), ("gzip", 1500), ("lz4", 1500)] {
        let good = small(compression);
        let mut outcomes = [0, 0];
        with_flips(&good, rounds, |_round, file| {
            outcomes[usize::from(read_in_all_ways(file).is_ok())] += 1;
        });
        assert!(outcomes[0] > 100, "{compression}: {outcomes:?}");
        assert!(outcomes[1] > 5, "{compression}: {outcomes:?}");
    }
}

#[test]
fn unpacking_an_altered_image_ends() {
    let good = small("none");
    let mut outcomes = [0, 0];
    with_flips(&good, 600, |_round, file| {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("target");
        std::fs::create_dir(&target).unwrap();
        let result = {
            let target = File::open(&target).unwrap();
            let threads = std::num::NonZeroUsize::MIN;
            unpack(file, std::os::fd::AsFd::as_fd(&target), &UnpackOptions { threads })
        };
        let names = std::fs::read_dir(parent.path()).unwrap().count();
        assert_eq!(names, 1, "nothing beside the target");
        outcomes[usize::from(result.is_ok())] += 1;
        super::unpacking::make_removable(&target);
    });
    assert!(outcomes.iter().all(|&count| count > 20), "{outcomes:?}");
}
