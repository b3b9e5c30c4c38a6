//! The squashfs format: what was written is read again, damage is an answer and no accident.

mod browsing;
mod damage;
mod sample;
mod serving;
mod unpacking;

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sample::{COMPRESSIONS, Part, Sample, metadata, noise, read_all, settings, torture};
use sarus_squash::{
    BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, Compression, Compressor, ContentId, Image, ImageReader, Kind,
    Metadata, Names, Node, NodeId, OwnersError, ReadError, Settings, Tree, WriteError, Writer,
    probe, restore_owners,
};

fn bytes(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len().try_into().unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn file_of(bytes: &[u8]) -> File {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

#[test]
fn what_is_written_is_read_again() {
    for (compression, block_size) in COMPRESSIONS
        .into_iter()
        .map(|name| (name, 4096))
        .chain([("zstd", 1 << 17), ("lz4", 1 << 20)])
    {
        let sample = torture(block_size.try_into().unwrap());
        let (file, written) = sample.write(&settings(compression, block_size, 2));
        let expected = sample.expected();
        let found = read_all(&file, Some(&written.ids)).unwrap();
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{compression} {block_size}"
        );
        for (path, found) in &found {
            // Not by assert_eq: contents are long.
            let (got, want) = (found, &expected[path]);
            let path = path.escape_ascii();
            assert!(got.what == want.what, "content of {path}, {compression} {block_size}");
            assert_eq!((got.mode, got.mtime), (want.mode, want.mtime), "{path}");
            assert_eq!(got.owner, want.owner, "{path}");
            assert!(got.xattrs == want.xattrs, "attributes of {path}");
            assert_eq!((got.links, &got.first), (want.links, &want.first), "{path}");
        }
    }
}

#[test]
fn the_superblock_tells_what_was_set() {
    for (compression, compressor) in [
        ("zstd:22", Compressor::Zstd),
        ("gzip:9", Compressor::Gzip),
        ("lz4", Compressor::Lz4),
        ("none", Compressor::Gzip),
    ] {
        let sample = torture(8192);
        let (file, written) = sample.write(&settings(compression, 8192, 1));
        let superblock = probe(&file).unwrap();
        assert_eq!(superblock.compressor, compressor);
        assert_eq!((superblock.block_size, superblock.time), (8192, 1_600_000_000));
        assert_eq!(superblock.inodes, written.inodes);
        assert_eq!(usize::from(superblock.ids), written.ids.len());
        let length = file.metadata().unwrap().len();
        assert_eq!(written.bytes, length, "the size told is the file's");
        assert_eq!(length % 4096, 0, "loop devices have whole sectors");
        assert!(superblock.bytes_used <= length && length < superblock.bytes_used + 4096);
        let padding = bytes(&file).split_off(superblock.bytes_used.try_into().unwrap());
        assert!(padding.iter().all(|&byte| byte == 0), "padding tells nothing");
    }
}

#[test]
fn an_empty_tree_is_an_image() {
    for compression in COMPRESSIONS {
        let sample = Sample::new();
        let (file, written) = sample.write(&settings(compression, 1 << 17, 1));
        assert_eq!((written.inodes, written.ids.as_slice()), (1, &[0][..]));
        assert_eq!(read_all(&file, None).unwrap(), sample.expected());
    }
}

#[test]
fn inode_numbers_are_one_to_their_count() {
    let (file, written) = torture(4096).write(&settings("zstd", 4096, 1));
    let image = Image::open(&file).unwrap();
    let mut reader = ImageReader::new(&image).unwrap();
    let mut numbers = Vec::new();
    reader.for_each_inode(|inode| numbers.push(inode.number)).unwrap();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=written.inodes).collect::<Vec<_>>());
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let sample = torture(4096);
    for compression in COMPRESSIONS {
        let (one, told) = sample.write(&settings(compression, 4096, 1));
        let (one, told) = (bytes(&one), (told.bytes, told.ids, told.inodes));
        for threads in [1, 2, 3, 8] {
            let (file, written) = sample.write(&settings(compression, 4096, threads));
            assert!(bytes(&file) == one, "{compression} with {threads} threads");
            assert_eq!((written.bytes, written.ids, written.inodes), told);
        }
    }
}

#[test]
fn small_files_share_fragment_blocks() {
    let mut sample = Sample::new();
    for index in 0..100 {
        sample.file(&format!("f{index}"), noise(1000, index));
    }
    let (file, _written) = sample.write(&settings("zstd", 4096, 2));
    // Four tails of 1000 bytes fit into a block of 4096.
    assert_eq!(probe(&file).unwrap().fragments, 25);
    assert_eq!(read_all(&file, None).unwrap(), sample.expected());
}

#[test]
fn holes_take_no_room() {
    let mut sample = Sample::new();
    let kind = sample.content(vec![
        Part::Zeros(20 << 20),
        Part::Bytes(b"x".to_vec()),
        Part::Zeros(20 << 20),
    ]);
    sample.add("f", kind);
    let (file, written) = sample.write(&settings("none", 1 << 17, 1));
    assert!(written.bytes <= (1 << 17) + 8192, "one block is stored: {}", written.bytes);
    assert!(read_all(&file, None).unwrap() == sample.expected());
}

#[test]
fn contents_without_a_name_leave_nothing() {
    // Whole blocks, so that no tail shares a fragment block with what stays.
    let dead = || vec![Part::Bytes(noise(3 * 4096, 77))];
    let mut with = Sample::new();
    with.content(dead());
    with.file("a", noise(10_000, 1));
    with.content(dead());
    with.file("b", noise(5000, 2));
    with.content(dead());
    let mut without = Sample::new();
    without.file("a", noise(10_000, 1));
    without.file("b", noise(5000, 2));
    for compression in COMPRESSIONS {
        let settings = settings(compression, 4096, 2);
        let ((with, _), (without, _)) = (with.write(&settings), without.write(&settings));
        assert!(bytes(&with) == bytes(&without), "{compression}");
    }
}

#[test]
fn large_directories_are_read_to_the_end() {
    for compression in ["zstd", "none"] {
        let mut sample = Sample::new();
        sample.add("big", Kind::Directory(Box::default()));
        let shared = sample.add("big/shared", Kind::Fifo);
        let Kind::Directory(mut names) = sample.tree.node(NodeId(1)).kind.clone() else { panic!() };
        for index in 0..40_000 {
            let id = match index % 3 {
                // Far from its neighbours, so that runs of entries end.
                0 => shared,
                _ => sample.tree.add(Node { metadata: metadata(), kind: Kind::Fifo }),
            };
            names.insert(format!("an entry with number {index:08}").as_bytes(), id);
        }
        sample.tree.node_mut(NodeId(1)).kind = Kind::Directory(names);
        let (file, written) = sample.write(&settings(compression, 1 << 17, 1));
        assert_eq!(written.inodes, 3 + 26_666);
        assert!(read_all(&file, None).unwrap() == sample.expected());
    }
}

#[test]
fn owners_are_kept_apart_and_put_back() {
    let mut sample = Sample::new();
    let owned = |uid, gid| Metadata { uid, gid, ..metadata() };
    // More than the 2048 that fit into one metadata block.
    for index in 0..5000 {
        sample.add_with(&format!("p{index:04}"), Kind::Fifo, owned(index, u32::MAX - index % 7));
    }
    let (file, written) = sample.write(&settings("zstd", 1 << 17, 1));
    let expected = sample.expected();
    assert_eq!(written.ids.len(), 5000 + 7);
    assert!(read_all(&file, Some(&written.ids)).unwrap() == expected, "the ids are told");
    let all_zero = read_all(&file, None).unwrap();
    assert!(all_zero.values().all(|found| found.owner == (0, 0)), "the file has only root");
    let copy = tempfile::tempfile().unwrap();
    restore_owners(&file, &copy, &written.ids).unwrap();
    assert!(read_all(&copy, None).unwrap() == expected, "a copy can have the real ones");
    assert!(read_all(&file, None).unwrap() == all_zero, "the image is as it was");
    let refused = restore_owners(&file, &copy, &written.ids[1..]).unwrap_err();
    assert!(matches!(refused, OwnersError::Count { expected: 5006, found: 5007 }), "{refused}");
    let refused = restore_owners(&file_of(b"no image"), &copy, &[]).unwrap_err();
    assert!(matches!(refused, OwnersError::Image(ReadError::NotSquashfs { .. })), "{refused}");
}

#[test]
fn more_owners_than_inodes_can_name_are_refused() {
    let mut sample = Sample::new();
    let mut names = Box::<Names>::default();
    for uid in 0..=65535 {
        let metadata = Metadata { uid, ..metadata() };
        let id = sample.tree.add(Node { metadata, kind: Kind::Fifo });
        names.insert(format!("{uid}").as_bytes(), id);
    }
    sample.tree.node_mut(Tree::ROOT).kind = Kind::Directory(names);
    let writer = Writer::new(tempfile::tempfile().unwrap(), &settings("none", 4096, 1)).unwrap();
    let error = writer.finish(&sample.tree).unwrap_err();
    assert_eq!(error.to_string(), "the image has more than 65535 owners and groups");
}

/// The error of writing a tree with one entry, and no contents.
fn refusal(name: &[u8], kind: Kind) -> String {
    let mut sample = Sample::new();
    let id = sample.tree.add(Node { metadata: metadata(), kind });
    sample.link_in("", name, id);
    let writer = Writer::new(tempfile::tempfile().unwrap(), &settings("none", 4096, 1)).unwrap();
    writer.finish(&sample.tree).unwrap_err().to_string()
}

#[test]
fn what_no_image_can_hold_is_refused() {
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'n'; 257]] {
        let want = format!("`{}` is no name for a directory entry", name.escape_ascii());
        assert_eq!(refusal(name, Kind::Fifo), want);
    }
    for length in [0, 4096] {
        assert_eq!(
            refusal(b"s", Kind::Symlink(vec![b't'; length].into())),
            format!("the target of symbolic link `s` has {length} bytes, not 1 to 4095")
        );
    }
    for (major, minor) in [(4096, 0), (0, 1 << 20)] {
        let want = format!("device `d` has the number {major}:{minor}, beyond 4095:1048575");
        assert_eq!(refusal(b"d", Kind::CharDevice { major, minor }), want);
        assert_eq!(refusal(b"d", Kind::BlockDevice { major, minor }), want);
    }
    assert_eq!(
        refusal(b"f", Kind::File(ContentId(0))),
        "`f` refers to a content that does not exist"
    );
    let names = Box::new(Names::from_iter([("x", NodeId(9))]));
    assert_eq!(refusal(b"d", Kind::Directory(names)), "`x` refers to a node that does not exist");
    let names = Box::new(Names::from_iter([("up", Tree::ROOT)]));
    assert_eq!(refusal(b"d", Kind::Directory(names)), "directory `up` is in the tree twice");
}

#[test]
fn contents_come_one_at_a_time() {
    let new = || Writer::new(tempfile::tempfile().unwrap(), &settings("none", 4096, 1)).unwrap();
    let text = |result: Result<(), WriteError>| result.unwrap_err().to_string();
    let wrong = |what| format!("file contents were submitted out of order: {what}");
    assert_eq!(text(new().append(b"x")), wrong("no file is open"));
    assert_eq!(text(new().append_zeros(1)), wrong("no file is open"));
    assert_eq!(text(new().end_file().map(|_id| ())), wrong("no file is open"));
    let mut writer = new();
    writer.start_file().unwrap();
    assert_eq!(text(writer.start_file()), wrong("a file is open already"));
    let tree = Tree::new(metadata());
    assert_eq!(text(writer.finish(&tree).map(|_written| ())), wrong("a file is open still"));
    let mut writer = new();
    writer.start_file().unwrap();
    assert_eq!(
        text(writer.append_zeros(u64::MAX)),
        "the image has more than 1152921504606846976 bytes in a file"
    );
    let mut writer = new();
    writer.start_file().unwrap();
    let error = writer.append_zeros(1 << 50).unwrap_err();
    assert_eq!(error.to_string(), "the image has more than 67108864 data blocks");
    assert_eq!(error.hint().as_deref(), Some("choose a larger block size"));
}

#[test]
fn output_that_takes_nothing_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    fs_err::write(&path, "").unwrap();
    let mut writer = Writer::new(File::open(&path).unwrap(), &settings("none", 4096, 1)).unwrap();
    let mut write = || {
        writer.start_file()?;
        writer.append(&noise(100_000, 1))?;
        writer.end_file()
    };
    let error = write().and_then(|_id| writer.finish(&Tree::new(metadata()))).unwrap_err();
    assert!(error.to_string().starts_with("cannot write the squashfs file at byte "), "{error}");
    assert!(error.source().is_some());
    assert_eq!(std::fs::read(&path).unwrap(), b"");
}

#[test]
fn settings_are_checked() {
    for (given, want) in [
        ("zstd", "zstd:1"),
        ("zstd:-7", "zstd:-7"),
        ("zstd:22", "zstd:22"),
        ("gzip", "gzip:6"),
        ("gzip:1", "gzip:1"),
        ("lz4", "lz4"),
        ("none", "none"),
    ] {
        assert_eq!(given.parse::<Compression>().unwrap().to_string(), want);
    }
    for given in [
        "", "xz", "zstd:", "zstd:0", "zstd:23", "zstd:-8", "gzip:0", "gzip:10", "gzip:-1", "lz4:1",
        "none:1", "ZSTD", "zstd:1:1",
    ] {
        let want = format!(
            "`{given}` is no compression: expected zstd[:-7..22], gzip[:1..9], lz4 or none"
        );
        assert_eq!(given.parse::<Compression>().unwrap_err().to_string(), want);
    }
    let refused = |settings: &Settings| {
        Writer::new(tempfile::tempfile().unwrap(), settings)
            .map(drop)
            .map_err(|error| error.to_string())
    };
    for block_size in [0, 1, 2048, 4097, 1 << 21, u32::MAX] {
        let want = format!(
            "a squashfs block of {block_size} bytes: expected a power of two from 4096 to 1048576"
        );
        assert_eq!(refused(&settings("none", block_size, 1)), Err(want));
    }
    for block_size in [BLOCK_SIZE_MIN, BLOCK_SIZE_MAX] {
        assert_eq!(refused(&settings("none", block_size, 1)), Ok(()));
    }
    let settings = Settings { compression: Compression::Zstd { level: 0 }, ..Settings::default() };
    assert_eq!(refused(&settings), Err("compression `zstd:0` has a level out of range".into()));
}

#[test]
fn what_is_no_image_is_told_apart() {
    let text = |bytes: &[u8]| probe(&file_of(bytes)).unwrap_err().to_string();
    assert_eq!(text(b""), "this is not a squashfs image: it starts with ``, not `hsqs`");
    assert_eq!(
        text(b"\x7fELF rest"),
        "this is not a squashfs image: it starts with `\\x7fELF`, not `hsqs`"
    );
    let (file, _written) = torture(4096).write(&settings("zstd", 4096, 1));
    let good = bytes(&file);
    let with = |at: usize, new: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        bytes
    };
    assert_eq!(text(&with(28, &[3, 0, 1, 0])), "the image has squashfs version 3.1: expected 4.0");
    assert_eq!(
        text(&with(20, &[9])),
        "the image is compressed with compressor 9: expected gzip, lz4 or zstd"
    );
    for (number, name) in [(2, "lzma"), (3, "lzo"), (4, "xz")] {
        let file = file_of(&with(20, &[number]));
        let error = Image::open(&file).map(drop).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the image is compressed with {name}: expected gzip, lz4 or zstd")
        );
        assert_eq!(
            error.hint().as_deref(),
            Some("convert the image with `mksquashfs … -comp zstd`")
        );
    }
    assert_eq!(text(&with(12, &[1])), "the image is damaged: no such block size (at byte 0)");
    assert_eq!(
        text(&with(64, &[0xff; 8])),
        "the image is damaged: tables out of order (at byte 0)"
    );
    let used = probe(&file).unwrap().bytes_used;
    let cut = &good[..usize::try_from(used).unwrap() - 1];
    assert_eq!(
        text(cut),
        format!(
            "the image is cut off: its superblock says {used} bytes, the file has {}",
            used - 1
        )
    );
}

#[test]
fn threads_share_one_fragment_cache() {
    let mut sample = Sample::new();
    for index in 0..64 {
        sample.file(&format!("f{index:02}"), noise(900, index));
    }
    let (file, _written) = sample.write(&settings("zstd", 4096, 2));
    let image = Image::open(&file).unwrap();
    let fragments = Arc::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut reader = ImageReader::new(&image).unwrap();
                let fragments = Arc::clone(&fragments);
                let mut contents = sarus_squash::ContentReader::new(&image, fragments).unwrap();
                let root = reader.inode(image.root()).unwrap();
                let sarus_squash::InodeKind::Directory(place) = &root.kind else { panic!() };
                let mut entries = reader.entries(place);
                for index in 0..64 {
                    // f00 to f63 are in this order in the listing.
                    let entry = entries.next(&mut reader).unwrap().unwrap();
                    let inode = reader.inode(entry.inode).unwrap();
                    let sarus_squash::InodeKind::File(place) = &inode.kind else { panic!() };
                    let mut bytes = Vec::new();
                    let read = contents.read(place, |piece| match piece {
                        sarus_squash::Piece::Data(mut data) => {
                            data.read_to_end(&mut bytes).unwrap();
                            Ok::<_, ReadError>(())
                        }
                        sarus_squash::Piece::Hole(_) => panic!("noise has no holes"),
                    });
                    read.unwrap();
                    assert!(bytes == noise(900, index));
                }
                assert!(entries.next(&mut reader).unwrap().is_none());
            });
        }
    });
}
