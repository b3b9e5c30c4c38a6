//! Looking into images: paths, comparison, and the check of a whole one.

use std::convert::Infallible;
use std::fs::File;

use sarus_squash::browse::{
    Aspect, BrowseError, Change, CompareError, CompareOptions, Last, Subject, Walk, check, compare,
    find,
};
use sarus_squash::{Image, ImageReader, Kind, Metadata, ReadError};

use super::damage::{small, with_flips};
use super::sample::{COMPRESSIONS, Part, Sample, metadata, noise, settings, torture};
use super::{bytes, file_of};

fn directory() -> Kind {
    Kind::Directory(Box::default())
}

fn link(target: &str) -> Kind {
    Kind::Symlink(target.as_bytes().into())
}

fn written(sample: &Sample) -> File {
    sample.write(&settings("zstd", 4096, 1)).0
}

/// What a path leads to, or the error.
fn found(file: &File, path: &str, last: Last) -> String {
    let image = Image::open(file).unwrap();
    let mut reader = ImageReader::new(&image).unwrap();
    match find(&mut reader, path.as_bytes(), last) {
        Ok(found) => String::from_utf8(found.path).unwrap(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn paths_are_resolved_inside_the_image_as_in_a_container() {
    let mut sample = Sample::new();
    sample.add("d", directory());
    sample.add("d/e", directory());
    sample.file("d/e/f", b"content".to_vec());
    for (name, target) in [
        ("absolute", "/d/e"),
        ("relative", "d/./e/"),
        ("out", "../../../d/e/f"),
        ("d/up", "../d/e"),
        ("d/absolute", "/d/e"),
        ("chain", "absolute/f"),
        ("dangling", "d/nothing"),
        ("loop", "loop"),
        ("through", "d/e/f/g"),
    ] {
        sample.add(name, link(target));
    }
    let file = written(&sample);
    for (path, want) in [
        ("/", "/"),
        ("", "/"),
        ("..", "/"),
        ("/../../d", "/d"),
        ("d//e/./f", "/d/e/f"),
        ("absolute", "/d/e"),
        ("relative/../e/f", "/d/e/f"),
        ("out", "/d/e/f"),
        ("/d/up/f", "/d/e/f"),
        ("/d/absolute/f", "/d/e/f"),
        ("chain", "/d/e/f"),
        ("dangling", "there is no `/d/nothing` in the image"),
        ("d/nothing/x", "there is no `/d/nothing` in the image"),
        ("loop", "more than 40 symbolic links in `loop`"),
        ("through", "`/d/e/f` in the image is no directory"),
        ("d/e/f/", "`/d/e/f` in the image is no directory"),
    ] {
        assert_eq!(found(&file, path, Last::Follow), want, "{path:?}");
    }
    for (path, want) in [("absolute", "/absolute"), ("absolute/", "/d/e"), ("loop", "/loop")] {
        assert_eq!(found(&file, path, Last::Keep), want, "{path:?}");
    }
    let deep = "x/".repeat(3000);
    let error = found(&file, &format!("/{}", "n".repeat(5000)), Last::Follow);
    assert!(error.starts_with("a path of more than 4096 bytes"), "{error}");
    assert_eq!(found(&file, &deep, Last::Follow), "there is no `/x` in the image");
}

type Told = Vec<(String, Change)>;

fn differences(a: &File, b: &File, times: bool) -> Told {
    differences_with(a, b, times, (None, None)).unwrap()
}

fn differences_with(
    a: &File,
    b: &File,
    times: bool,
    ids: (Option<&[u32]>, Option<&[u32]>),
) -> Result<Told, CompareError<Infallible>> {
    let (image_a, image_b) = (Image::open(a).unwrap(), Image::open(b).unwrap());
    let mut told = Vec::new();
    compare(
        Subject { image: &image_a, ids: ids.0 },
        Subject { image: &image_b, ids: ids.1 },
        CompareOptions { times },
        |found| {
            told.push((String::from_utf8(found.path).unwrap(), found.change));
            Ok(())
        },
    )?;
    Ok(told)
}

#[test]
fn an_image_has_no_differences_from_itself_however_it_is_compressed() {
    let sample = torture(4096);
    let first = sample.write(&settings("zstd", 4096, 2)).0;
    for (compression, block_size) in COMPRESSIONS
        .into_iter()
        .map(|name| (name, 4096))
        .chain([("zstd:9", 4096), ("lz4", 1 << 17)])
    {
        let second = sample.write(&settings(compression, block_size, 2)).0;
        assert_eq!(differences(&first, &second, true), [], "{compression} {block_size}");
    }
}

#[test]
fn each_difference_is_told_with_what_changed() {
    let big = noise(30_000, 1);
    let mut other = big.clone();
    other[17_000] ^= 1;
    let with = |change: fn(&mut Metadata)| {
        let mut changed = metadata();
        change(&mut changed);
        changed
    };
    let build = |is_b: bool| {
        let mut sample = Sample::new();
        let pick = |a: Metadata, b: Metadata| if is_b { b } else { a };
        sample.file("same", b"same".to_vec());
        sample.file("content", if is_b { other.clone() } else { big.clone() });
        sample.file("tail", if is_b { b"tail b".to_vec() } else { b"tail a".to_vec() });
        sample.file("size", vec![b's'; if is_b { 10 } else { 20 }]);
        let zeros = if is_b {
            vec![Part::Bytes(vec![0; 9000]), Part::Bytes(b"end".to_vec())]
        } else {
            vec![Part::Zeros(9000), Part::Bytes(b"end".to_vec())]
        };
        let kind = sample.content(zeros);
        sample.add("hole", kind);
        sample.add_with("mode", directory(), pick(metadata(), with(|m| m.mode = 0o700)));
        sample.add_with("time", Kind::Fifo, pick(metadata(), with(|m| m.mtime = 99)));
        sample.add_with("owner", Kind::Socket, pick(metadata(), with(|m| m.gid = 7)));
        let attribute = with(|m| {
            m.xattrs = Some(vec![(b"user.a"[..].into(), b"b"[..].into())].into());
        });
        let kind = sample.content(Vec::new());
        sample.add_with("xattrs", kind, pick(metadata(), attribute));
        sample.add("link", link(if is_b { "b" } else { "a" }));
        let minor = u32::from(is_b);
        sample.add("device", Kind::CharDevice { major: 1, minor });
        if is_b {
            sample.add("type", directory());
            sample.file("type/below", Vec::new());
            sample.add("added", directory());
            sample.add("added/d", directory());
            sample.file("added/d/f", b"f".to_vec());
        } else {
            sample.add("type", Kind::Fifo);
            sample.add("deleted", directory());
            sample.file("deleted/f", b"f".to_vec());
        }
        sample.write(&settings("zstd", 4096, 1))
    };
    let ((a, in_a), (b, in_b)) = (build(false), build(true));
    let told = |times| differences_with(&a, &b, times, (Some(&in_a.ids), Some(&in_b.ids))).unwrap();
    let changed = |path: &str, aspect| (path.to_owned(), Change::Changed(vec![aspect]));
    let added = |path: &str| (path.to_owned(), Change::Added);
    let mut want = vec![
        added("/added"),
        added("/added/d"),
        added("/added/d/f"),
        changed("/content", Aspect::Content),
        ("/deleted".to_owned(), Change::Deleted),
        changed("/device", Aspect::Device),
        changed("/link", Aspect::Target),
        changed("/mode", Aspect::Mode),
        changed("/owner", Aspect::Owner),
        changed("/size", Aspect::Size),
        changed("/tail", Aspect::Content),
        changed("/type", Aspect::Type),
        added("/type/below"),
        changed("/xattrs", Aspect::Attributes),
    ];
    assert_eq!(told(false), want);
    want.insert(11, changed("/time", Aspect::Time));
    assert_eq!(told(true), want);
    // The file's own table has zeros only.
    let unseen = differences(&a, &b, false);
    assert!(!unseen.iter().any(|(path, _)| path == "/owner"), "{unseen:?}");
}

/// Images that others made, kept with the fuzz targets.
fn foreign(name: &str) -> File {
    let path = format!("{}/fuzz/corpus/squashfs/{name}", env!("CARGO_MANIFEST_DIR"));
    File::open(path).unwrap()
}

#[test]
fn images_of_mksquashfs_and_tar2sqfs_are_sound_and_the_same() {
    let first = foreign("zstd");
    let checked = |file: &File| check(&Image::open(file).unwrap()).unwrap();
    let want = checked(&first);
    assert!(want.entries > 15 && want.bytes > 25_000, "{want:?}");
    for name in ["gzip", "lz4", "raw", "rawmeta", "tails", "old"] {
        let file = foreign(name);
        assert_eq!(differences(&first, &file, true), [], "{name}");
        let got = checked(&file);
        assert_eq!((got.entries, got.bytes), (want.entries, want.bytes), "{name}");
    }
    assert!(checked(&foreign("tar2sqfs")).entries > 5);
    let error = Image::open(&foreign("xz")).unwrap_err();
    assert!(matches!(&error, ReadError::Compressor { name } if name == "xz"), "{error}");
}

#[test]
fn a_check_names_the_path_that_is_damaged() {
    let mut sample = Sample::new();
    sample.add("d", directory());
    sample.file("d/sound", noise(9000, 1));
    sample.file("d/wrong", noise(9000, 2));
    // Compressed badly, so that the blocks are stored as they are but for their tails.
    sample.file("d/text", b"some text ".repeat(1000));
    let good = bytes(&sample.write(&settings("zstd", 4096, 1)).0);
    let image = file_of(&good);
    let sound = check(&Image::open(&image).unwrap()).unwrap();
    assert_eq!((sound.entries, sound.bytes), (5, 28_000));
    let text = good.windows(9).position(|window| window == b"some text").unwrap();
    let mut bad = good;
    // Behind the frame's header; what a frame repeats is found out by its length.
    bad[text - 6..text].fill(0xff);
    let error = check(&Image::open(&file_of(&bad)).unwrap()).unwrap_err();
    assert!(error.is_damage());
    assert!(error.to_string().contains("`/d/text`"), "{error}");
}

#[test]
fn altered_images_are_compared_and_checked_or_refused() {
    let good = small("none");
    let original = file_of(&good);
    let (mut sound, mut damaged) = (0, 0);
    with_flips(&good, 3000, |_round, file| {
        let Ok(image) = Image::open(file) else { return };
        let is_sound = check(&image).is_ok();
        let (a, b) = (Image::open(&original).unwrap(), &image);
        let subjects = (Subject { image: &a, ids: None }, Subject { image: b, ids: None });
        let options = CompareOptions { times: true };
        let compared = compare(subjects.0, subjects.1, options, |_| Ok::<_, Infallible>(()));
        assert!(!matches!(compared, Err(CompareError::A(_))), "the original is sound");
        if is_sound {
            assert!(compared.is_ok(), "sound images can be compared");
            sound += 1;
        } else {
            damaged += 1;
        }
    });
    assert!(sound > 20 && damaged > 300, "{sound} {damaged}");
}

#[test]
fn a_directory_that_is_its_own_descendant_is_refused() {
    let mut sample = Sample::new();
    sample.add("a", directory());
    sample.add("a/b", directory());
    sample.add("a/b/c", directory());
    let good = bytes(&sample.write(&settings("none", 4096, 1)).0);
    let image = file_of(&good);
    let root = {
        let image = Image::open(&image).unwrap();
        let mut reader = ImageReader::new(&image).unwrap();
        find(&mut reader, b"/a", Last::Keep).unwrap().reference
    };
    // The entry `c` of `b` gets the place of `a` in the table of inodes.
    let tail = b"\x01\0\0\0c";
    let entry = good.windows(5).rposition(|window| window == tail).unwrap() - 4;
    let mut bad = good;
    let offset = u16::try_from(root.to_bits() & 0xffff).unwrap();
    bad[entry..entry + 2].copy_from_slice(&offset.to_le_bytes());
    let bad = file_of(&bad);
    let image = Image::open(&bad).unwrap();
    let mut reader = ImageReader::new(&image).unwrap();
    let top = find(&mut reader, b"/", Last::Keep).unwrap();
    let mut walk = Walk::new(&reader, &top).unwrap();
    let error = loop {
        match walk.next(&mut reader) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the walk came to an end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "the image is damaged: `/a/b/c` is a directory met before");
    assert!(matches!(check(&image), Err(BrowseError::Tree { .. })));
}
