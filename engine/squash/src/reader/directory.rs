//! Directory listings, one entry at a time.

use rustix::fs::FileType;

use super::bytes::Fields;
use super::error::ReadError;
use super::image::ImageReader;
use super::inode::{DirectoryPlace, InodeReference};
use super::metadata::{Cursor, damaged};
use crate::format::{
    BLOCK_DEVICE, CHAR_DEVICE, DIRECTORY, FIFO, FILE, NAME_MAX, RUN_ENTRIES_MAX, SOCKET, SYMLINK,
    Superblock,
};

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name: 1 to 256 bytes, neither `.` nor `..`, without a slash or a zero byte.
    pub name: Vec<u8>,
    /// Its inode.
    pub inode: InodeReference,
    /// Its inode's number, as the directory says.
    pub number: u32,
    /// Its inode's type, as the directory says.
    pub kind: FileType,
}

/// A place in a listing.
#[derive(Debug, Clone)]
pub struct Entries {
    cursor: Cursor,
    /// Bytes left in the listing.
    left: u32,
    /// Entries left behind the last header.
    run: usize,
    /// Metadata block of the inodes behind the last header.
    block: u32,
    /// What the numbers of those inodes are counted from.
    number: u32,
}

impl Entries {
    pub(super) fn new(directory: &DirectoryPlace, superblock: &Superblock) -> Self {
        let reference = u64::from(directory.block) << 16 | u64::from(directory.offset);
        let (table, end) = (superblock.directory_table, superblock.directory_end());
        Self {
            cursor: Cursor::new(table, end, reference),
            // `.` and `..` count 3 bytes.
            left: directory.size.saturating_sub(3),
            run: 0,
            block: 0,
            number: 0,
        }
    }

    /// The next entry.
    ///
    /// # Errors
    ///
    /// The image cannot be read, or is damaged.
    pub fn next(&mut self, reader: &mut ImageReader<'_>) -> Result<Option<Entry>, ReadError> {
        let metadata = &mut reader.metadata;
        let position = self.cursor.position();
        if self.run == 0 {
            if self.left == 0 {
                return Ok(None);
            }
            let header = metadata.read_array::<12>(&mut self.cursor)?;
            self.take(12, position)?;
            let mut fields = Fields::new(&header, position);
            self.run = (fields.u32()? as usize).saturating_add(1);
            self.block = fields.u32()?;
            self.number = fields.u32()?;
            if self.run > RUN_ENTRIES_MAX {
                return Err(damaged("too many entries behind a directory header", position));
            }
        }
        self.run -= 1;
        let head = metadata.read_array::<8>(&mut self.cursor)?;
        let mut fields = Fields::new(&head, position);
        let (offset, number, kind) = (fields.u16()?, fields.u16()?, fields.u16()?);
        let length = usize::from(fields.u16()?) + 1;
        if length > NAME_MAX {
            return Err(damaged("a name of more than 256 bytes", position));
        }
        let mut name = vec![0; length];
        metadata.read(&mut self.cursor, &mut name)?;
        self.take(8 + length, position)?;
        if name.iter().any(|&byte| byte == b'/' || byte == 0) || name == b"." || name == b".." {
            return Err(damaged("a name that no entry can have", position));
        }
        let inode = InodeReference(u64::from(self.block) << 16 | u64::from(offset));
        let number = self.number.wrapping_add_signed(i32::from(number.cast_signed()));
        Ok(Some(Entry { name, inode, number, kind: file_type(kind) }))
    }

    fn take(&mut self, count: usize, position: u64) -> Result<(), ReadError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.left = self
            .left
            .checked_sub(count)
            .ok_or_else(|| damaged("a directory that ends in the midst of an entry", position))?;
        Ok(())
    }
}

fn file_type(kind: u16) -> FileType {
    match kind {
        DIRECTORY => FileType::Directory,
        FILE => FileType::RegularFile,
        SYMLINK => FileType::Symlink,
        BLOCK_DEVICE => FileType::BlockDevice,
        CHAR_DEVICE => FileType::CharacterDevice,
        FIFO => FileType::Fifo,
        SOCKET => FileType::Socket,
        _ => FileType::Unknown,
    }
}
