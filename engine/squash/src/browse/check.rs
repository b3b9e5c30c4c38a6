//! Checks a whole image: every inode, listing, attribute and block is read once.

use std::collections::HashMap;

use rustix::fs::FileType;

use super::content::{Contents, Pieces};
use super::{BrowseError, Visited, Walk};
use crate::reader::{
    Extent, FilePlace, Image, ImageReader, Inode, InodeKind, ReadError, StoredBlock,
};

/// Blocks that are known to be sound, so that those which files share are read once. Beyond so
/// many, blocks are read each time: an image of 30 GB has a few hundred thousand.
const KNOWN_MAX: usize = 1 << 22;

/// What a check found to be sound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Entries, the root among them.
    pub entries: u64,
    /// Bytes in regular files, holes included.
    pub bytes: u64,
    /// Blocks of data that were decompressed.
    pub blocks: u64,
}

/// Reads all of an image, and checks it against the format.
///
/// # Errors
///
/// The first fault that is found, with the path that it is at.
pub fn check(image: &Image<'_>) -> Result<Checked, BrowseError> {
    let mut reader = ImageReader::new(image).map_err(BrowseError::read(b"/"))?;
    let contents = Contents::new(image).map_err(BrowseError::read(b"/"))?;
    let mut checker = Checker { contents, known: HashMap::new(), done: Checked::default() };
    let root = super::find(&mut reader, b"/", super::Last::Keep)?;
    if !matches!(root.inode.kind, InodeKind::Directory(_)) {
        return Err(BrowseError::tree(b"/", "is no directory"));
    }
    checker.inode(&mut reader, &root.path, &root.inode)?;
    let mut walk = Walk::new(&reader, &root)?;
    while let Some(visited) = walk.next(&mut reader)? {
        checker.entry(&visited)?;
        let Visited { path, inode, .. } = &visited;
        checker.inode(&mut reader, path, inode)?;
    }
    Ok(checker.done)
}

struct Checker<'a> {
    contents: Contents<'a>,
    /// Blocks that were read, and their length when decompressed.
    known: HashMap<StoredBlock, u32>,
    done: Checked,
}

impl Checker<'_> {
    /// What a directory says of an inode is what the inode says.
    fn entry(&self, Visited { entry, path, inode }: &Visited) -> Result<(), BrowseError> {
        if entry.number != inode.number {
            return Err(BrowseError::tree(path, "has another number than its directory says"));
        }
        if entry.kind != type_of(&inode.kind) {
            return Err(BrowseError::tree(path, "is of another type than its directory says"));
        }
        Ok(())
    }

    fn inode(
        &mut self,
        reader: &mut ImageReader<'_>,
        path: &[u8],
        inode: &Inode,
    ) -> Result<(), BrowseError> {
        self.done.entries += 1;
        if inode.number == 0 || inode.number > self.contents.image().superblock().inodes {
            return Err(BrowseError::tree(path, "has a number that no inode can have"));
        }
        let owners = reader.id(inode.owner).and_then(|_owner| reader.id(inode.group));
        owners.map_err(BrowseError::read(path))?;
        reader.xattrs(inode).map_err(BrowseError::read(path))?;
        match &inode.kind {
            InodeKind::File(place) => self.content(place).map_err(BrowseError::read(path)),
            _ => Ok(()),
        }
    }

    fn content(&mut self, file: &FilePlace) -> Result<(), ReadError> {
        self.done.bytes = self.done.bytes.saturating_add(file.size);
        let mut pieces = Pieces::new(file);
        while let Some(piece) = pieces.next(&mut self.contents)? {
            let Extent::Stored { block, start, length } = piece else { continue };
            let there = match self.known.get(&block) {
                Some(&there) => there,
                None => self.block(block)?,
            };
            if u64::from(start) + u64::from(length) > u64::from(there) {
                let position = block.position();
                return Err(ReadError::Damaged { what: "a tail beyond its fragment", position });
            }
        }
        Ok(())
    }

    fn block(&mut self, block: StoredBlock) -> Result<u32, ReadError> {
        let there = u32::try_from(self.contents.plain(block)?.len()).unwrap_or(u32::MAX);
        self.done.blocks += 1;
        if self.known.len() < KNOWN_MAX {
            self.known.insert(block, there);
        }
        Ok(there)
    }
}

fn type_of(kind: &InodeKind) -> FileType {
    match kind {
        InodeKind::Directory(_) => FileType::Directory,
        InodeKind::File(_) => FileType::RegularFile,
        InodeKind::Symlink(_) => FileType::Symlink,
        InodeKind::CharDevice { .. } => FileType::CharacterDevice,
        InodeKind::BlockDevice { .. } => FileType::BlockDevice,
        InodeKind::Fifo => FileType::Fifo,
        InodeKind::Socket => FileType::Socket,
    }
}
