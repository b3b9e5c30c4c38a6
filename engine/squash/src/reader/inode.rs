//! Inodes as they lie in the inode table.

use super::bytes::Fields;
use super::error::ReadError;
use super::metadata::{Cursor, MetadataReader, damaged};
use crate::format::{
    BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, EXTENDED, FIFO, FILE, NO_FRAGMENT, NO_XATTR, SOCKET,
    SYMLINK, decode_device,
};

/// Longest target of a symbolic link that is read, in bytes.
const SYMLINK_READ_MAX: u32 = 65535;

/// Where an inode is in the inode table; the identity of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeReference(pub(super) u64);

impl InodeReference {
    /// Values of [`InodeReference::to_bits`] are below this: 32 bits for a block, 16 for a place
    /// in it.
    pub const BITS_END: u64 = 1 << 48;

    /// The reference as a number, by which [`InodeReference::from_bits`] finds it again.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The reference of a number. Whether an inode is there shows when it is read.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits < Self::BITS_END).then_some(Self(bits))
    }
}

/// One inode. Nothing in it is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inode {
    /// Its number, from 1.
    pub number: u32,
    /// Permission bits with set-user-ID, set-group-ID and sticky.
    pub mode: u16,
    /// Its owner, as an index of the id table.
    pub owner: u16,
    /// Its group, as an index of the id table.
    pub group: u16,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Names it has.
    pub links: u32,
    /// The number of its set of extended attributes, or `u32::MAX`.
    pub(super) xattr: u32,
    /// Its type and what belongs to it.
    pub kind: InodeKind,
}

/// What an inode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InodeKind {
    /// A directory: see [`crate::ImageReader::entries`].
    Directory(DirectoryPlace),
    /// A regular file: see [`crate::ContentReader::read`].
    File(FilePlace),
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Where a directory's listing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPlace {
    pub(super) block: u32,
    pub(super) offset: u16,
    /// Bytes of the listing, and 3.
    pub size: u32,
    /// Number of the inode of the directory above, as the image says.
    pub parent: u32,
}

/// Where a file's content is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    /// Bytes in the file.
    pub size: u64,
    /// Bytes of it that are in holes, as the image says.
    pub holes: u64,
    pub(super) start: u64,
    pub(super) fragment: u32,
    pub(super) offset: u32,
    /// The sizes of its blocks.
    pub(super) blocks: Cursor,
}

impl FilePlace {
    /// Blocks in its list: the tail is not in it where it is in a fragment.
    pub(super) fn block_count(&self, block_size: u32) -> u64 {
        let block_size = u64::from(block_size);
        match self.fragment {
            NO_FRAGMENT => self.size.div_ceil(block_size),
            _ => self.size / block_size,
        }
    }
}

impl MetadataReader<'_> {
    /// Reads an inode; the cursor stays before a file's list of blocks, and behind all else.
    pub(super) fn inode(&mut self, cursor: &mut Cursor) -> Result<Inode, ReadError> {
        let position = cursor.position();
        let base = self.read_array::<16>(cursor)?;
        let mut fields = Fields::new(&base, position);
        let kind = fields.u16()?;
        let mode = fields.u16()? & 0o7777;
        let (owner, group) = (fields.u16()?, fields.u16()?);
        let (mtime, number) = (fields.u32()?, fields.u32()?);
        let (kind, links, xattr) = match kind {
            DIRECTORY => self.directory(cursor)?,
            kind if kind == DIRECTORY + EXTENDED => self.extended_directory(cursor)?,
            FILE => self.file(cursor)?,
            kind if kind == FILE + EXTENDED => self.extended_file(cursor)?,
            kind if (SYMLINK..=SOCKET).contains(&kind) => self.special(cursor, kind, false)?,
            kind if (SYMLINK + EXTENDED..=SOCKET + EXTENDED).contains(&kind) => {
                self.special(cursor, kind - EXTENDED, true)?
            }
            _ => return Err(damaged("an inode of an unknown type", position)),
        };
        Ok(Inode { number, mode, owner, group, mtime, links, xattr, kind })
    }

    fn directory(&mut self, cursor: &mut Cursor) -> Result<(InodeKind, u32, u32), ReadError> {
        let bytes = self.read_array::<16>(cursor)?;
        let mut fields = Fields::new(&bytes, cursor.position());
        let (block, links) = (fields.u32()?, fields.u32()?);
        let (size, offset) = (u32::from(fields.u16()?), fields.u16()?);
        let place = DirectoryPlace { block, offset, size, parent: fields.u32()? };
        Ok((InodeKind::Directory(place), links, NO_XATTR))
    }

    fn extended_directory(
        &mut self,
        cursor: &mut Cursor,
    ) -> Result<(InodeKind, u32, u32), ReadError> {
        let bytes = self.read_array::<24>(cursor)?;
        let mut fields = Fields::new(&bytes, cursor.position());
        let (links, size) = (fields.u32()?, fields.u32()?);
        let (block, parent) = (fields.u32()?, fields.u32()?);
        let (indexes, offset, xattr) = (fields.u16()?, fields.u16()?, fields.u32()?);
        for _ in 0..indexes {
            let entry = self.read_array::<12>(cursor)?;
            let mut fields = Fields::new(&entry, cursor.position());
            let (_index, _block, length) = (fields.u32()?, fields.u32()?, fields.u32()?);
            self.skip(cursor, u64::from(length) + 1)?;
        }
        let place = DirectoryPlace { block, offset, size, parent };
        Ok((InodeKind::Directory(place), links, xattr))
    }

    fn file(&mut self, cursor: &mut Cursor) -> Result<(InodeKind, u32, u32), ReadError> {
        let bytes = self.read_array::<16>(cursor)?;
        let mut fields = Fields::new(&bytes, cursor.position());
        let (start, fragment) = (u64::from(fields.u32()?), fields.u32()?);
        let (offset, size) = (fields.u32()?, u64::from(fields.u32()?));
        let place = FilePlace { size, holes: 0, start, fragment, offset, blocks: *cursor };
        Ok((InodeKind::File(place), 1, NO_XATTR))
    }

    fn extended_file(&mut self, cursor: &mut Cursor) -> Result<(InodeKind, u32, u32), ReadError> {
        let bytes = self.read_array::<40>(cursor)?;
        let mut fields = Fields::new(&bytes, cursor.position());
        let (start, size, holes) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (links, fragment) = (fields.u32()?, fields.u32()?);
        let (offset, xattr) = (fields.u32()?, fields.u32()?);
        let place = FilePlace { size, holes, start, fragment, offset, blocks: *cursor };
        Ok((InodeKind::File(place), links, xattr))
    }

    fn special(
        &mut self,
        cursor: &mut Cursor,
        kind: u16,
        is_extended: bool,
    ) -> Result<(InodeKind, u32, u32), ReadError> {
        let links = u32::from_le_bytes(self.read_array(cursor)?);
        let kind = match kind {
            FIFO => InodeKind::Fifo,
            SOCKET => InodeKind::Socket,
            SYMLINK => InodeKind::Symlink(self.target(cursor)?),
            _ => {
                let (major, minor) = decode_device(u32::from_le_bytes(self.read_array(cursor)?));
                match kind {
                    CHAR_DEVICE => InodeKind::CharDevice { major, minor },
                    BLOCK_DEVICE => InodeKind::BlockDevice { major, minor },
                    _ => return Err(damaged("an inode of an unknown type", cursor.position())),
                }
            }
        };
        let xattr =
            if is_extended { u32::from_le_bytes(self.read_array(cursor)?) } else { NO_XATTR };
        Ok((kind, links, xattr))
    }

    fn target(&mut self, cursor: &mut Cursor) -> Result<Vec<u8>, ReadError> {
        let length = u32::from_le_bytes(self.read_array(cursor)?);
        if length == 0 || length > SYMLINK_READ_MAX {
            return Err(damaged("a symbolic link of an impossible length", cursor.position()));
        }
        let mut target = vec![0; length as usize];
        self.read(cursor, &mut target)?;
        if target.contains(&0) {
            return Err(damaged("a symbolic link with a zero byte", cursor.position()));
        }
        Ok(target)
    }
}
