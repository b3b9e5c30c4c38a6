//! Targets that take archives and images.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;

use sarus_squash::browse::{
    BrowseError, CompareOptions, Last, Subject, Walk, check, compare, find,
};
use sarus_squash::merge::{COMPONENT_SIZE_MAX, ContentSink, Merger, TARGET_SIZE_MAX};
use sarus_squash::tar::Archive;
use sarus_squash::{
    ContentId, ContentReader, Image, ImageReader, InodeKind, Kind, Layer, NodeId, Piece, Settings,
    Tree, convert, merge_layers,
};

/// Counts only.
#[derive(Default)]
struct Counter {
    files: u32,
    bytes: u64,
}

impl ContentSink for Counter {
    type Error = Infallible;

    fn start_file(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn append(&mut self, data: &[u8]) -> Result<(), Infallible> {
        self.bytes += data.len() as u64;
        Ok(())
    }

    fn append_zeros(&mut self, _length: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn end_file(&mut self) -> Result<ContentId, Infallible> {
        self.files += 1;
        Ok(ContentId(self.files - 1))
    }
}

/// One to three layers, as the first byte says; with its fourth bit the headers' checksums are
/// made right first, which chance never does.
pub fn tar(input: &[u8]) {
    let Some((&first, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    let mut merger = Merger::new(Counter::default(), 0);
    let count = usize::from(first % 3) + 1;
    // Layers begin at a header.
    let length = bytes.len().div_ceil(count).next_multiple_of(512).max(512);
    for layer in bytes.chunks_mut(length) {
        if first & 8 != 0 {
            mend_checksums(layer);
        }
        merger.begin_layer();
        let mut archive = Archive::new(&*layer);
        while let Ok(Some(entry)) = archive.next_entry() {
            assert!(!entry.path.contains(&0), "a path with a zero byte");
            if merger.apply(&entry, &mut archive).is_err() {
                return;
            }
        }
    }
    let (tree, sink) = merger.finish();
    assert!(sink.bytes <= bytes.len() as u64, "more data than there was input");
    check_tree(&tree);
}

/// Puts the right sum into every block that is a header if sizes are as they seem.
fn mend_checksums(layer: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = layer.get_mut(at..at + 512) {
        at += 512;
        if block.iter().all(|&byte| byte == 0) {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = block[124..136].iter().fold(0_usize, |size, &digit| match digit {
            b'0'..=b'7' => size.saturating_mul(8).saturating_add(usize::from(digit - b'0')),
            _ => size,
        });
        if !matches!(block[156], b'1'..=b'6') {
            at = at.saturating_add(size.min(layer.len()).next_multiple_of(512));
        }
    }
}

/// Nothing in a tree can lead out of it.
fn check_tree(tree: &Tree) {
    let mut seen: HashSet<NodeId> = HashSet::from([Tree::ROOT]);
    let mut left = vec![Tree::ROOT];
    while let Some(id) = left.pop() {
        match &tree.node(id).kind {
            Kind::Directory(names) => {
                for (name, child) in names.iter() {
                    assert!(!matches!(name, b"" | b"." | b"..") && !name.contains(&b'/'));
                    assert!(!name.contains(&0) && name.len() <= COMPONENT_SIZE_MAX);
                    let is_directory = matches!(tree.node(child).kind, Kind::Directory(_));
                    assert!(!is_directory || !seen.contains(&child), "a directory of two names");
                    if seen.insert(child) {
                        left.push(child);
                    }
                }
            }
            Kind::Symlink(target) => {
                assert!((1..=TARGET_SIZE_MAX).contains(&target.len()) && !target.contains(&0));
            }
            _ => {}
        }
    }
}

/// A layer however compressed, converted to an image, which is then read.
pub fn layer(input: &[u8]) {
    let layers = |bytes: Vec<u8>| {
        let reader = Box::new(std::io::Cursor::new(bytes));
        std::iter::once(Ok::<_, Infallible>(Layer { name: "sha256:0".to_owned(), reader }))
    };
    let merged = merge_layers(layers(input.to_vec()), Counter::default(), 0, &|_| {});
    let Ok(merged) = merged else { return };
    check_tree(&merged.tree);
    // Sizes that the archive only claims to have are holes: they cost a list of blocks.
    if merged.unpacked_bytes > 1 << 24 {
        return;
    }
    let output = temporary();
    let settings = Settings { threads: NonZeroUsize::MIN, ..Settings::default() };
    let copy = output.try_clone().expect("a second descriptor");
    convert(layers(input.to_vec()), copy, &settings, &|_| {}).expect("what was merged is written");
    read(&output).expect("what was written is read");
}

/// In memory, where that can be.
fn temporary() -> File {
    let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile());
    file.expect("a temporary file")
}

thread_local! {
    /// The file that holds the image, used again: making one takes longer than reading it.
    static IMAGE: OnceCell<File> = const { OnceCell::new() };
}

/// A squashfs file, read in all ways.
pub fn squashfs(input: &[u8]) {
    IMAGE.with(|file| {
        let file = file.get_or_init(temporary);
        file.set_len(input.len() as u64).expect("a length");
        file.write_all_at(input, 0).expect("content");
        // Any error is an answer.
        let _any = read(file);
        let _any = browse(file);
    });
}

/// An image that is sound has no differences from itself, and what a walk meets is found.
fn browse(file: &File) -> Result<(), BrowseError> {
    let open = || Image::open(file).map_err(|error| BrowseError::at(b"/", error));
    let (image, other) = (open()?, open()?);
    let mut reader = ImageReader::new(&image).map_err(|error| BrowseError::at(b"/", error))?;
    for path in [&b"d/l"[..], b"a/../d/e/./3/", b"/d/../../p"] {
        if let Ok(found) = find(&mut reader, path, Last::Follow) {
            assert!(found.path.starts_with(b"/") && !found.path.contains(&0));
        }
    }
    let checked = check(&image);
    let top = find(&mut reader, b"/", Last::Keep)?;
    let mut walk = Walk::new(&reader, &top)?;
    let mut entries = 1;
    while let Some(met) = walk.next(&mut reader)? {
        entries += 1;
        if entries < 20 {
            let found = find(&mut reader, &met.path, Last::Keep)?;
            assert_eq!((found.path, found.reference), (met.path, met.entry.inode));
        }
    }
    if let Ok(checked) = checked {
        assert_eq!(checked.entries, entries);
        let (a, b) = (Subject { image: &image, ids: None }, Subject { image: &other, ids: None });
        let compared = compare(a, b, CompareOptions { times: true }, Err);
        assert!(compared.is_ok(), "{compared:?}");
    }
    Ok(())
}

/// Entries, and bytes of contents, that are read of one image: listings of a few bytes can name
/// the same again and again, and holes have any size.
const ENTRIES_MAX: u32 = 2000;
const BYTES_MAX: u64 = 1 << 20;

pub(crate) fn read(file: &File) -> Result<(), sarus_squash::ReadError> {
    let image = Image::open(file)?;
    let mut reader = ImageReader::new(&image)?;
    let mut contents = ContentReader::new(&image, std::sync::Arc::default())?;
    let (mut entries_left, mut bytes_left) = (ENTRIES_MAX, BYTES_MAX);
    let mut seen = HashSet::from([image.root()]);
    let mut left = vec![image.root()];
    while let Some(reference) = left.pop() {
        let inode = reader.inode(reference)?;
        let attributes = reader.xattrs(&inode)?;
        assert!(attributes.iter().all(|(name, _)| !name.contains(&0)));
        let _owner = (reader.id(inode.owner), reader.id(inode.group));
        match &inode.kind {
            InodeKind::Directory(place) => {
                let mut entries = reader.entries(place);
                while let Some(entry) = entries.next(&mut reader)? {
                    assert!(!entry.name.contains(&b'/') && !entry.name.is_empty());
                    entries_left = entries_left.saturating_sub(1);
                    if entries_left == 0 {
                        return Ok(());
                    }
                    if seen.insert(entry.inode) {
                        left.push(entry.inode);
                    }
                }
            }
            InodeKind::File(place) if place.size <= bytes_left => {
                bytes_left -= place.size;
                let mut got = 0;
                contents.read(place, |piece| {
                    got += match piece {
                        Piece::Hole(length) => length,
                        Piece::Data(data) => data.len() as u64,
                    };
                    Ok::<_, sarus_squash::ReadError>(())
                })?;
                assert_eq!(got, place.size, "a file has the size that its inode says");
                let extents = reader.extents(place, &mut Default::default(), 0, 64)?;
                assert!(extents.len() <= 64);
            }
            _ => {}
        }
    }
    Ok(())
}
