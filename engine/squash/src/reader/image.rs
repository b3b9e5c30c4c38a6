//! An image opened for reading, and what a thread needs to read it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::bytes::Fields;
use super::directory::Entries;
use super::error::ReadError;
use super::inode::{DirectoryPlace, Inode, InodeKind, InodeReference};
use super::metadata::{Cursor, MetadataReader, damaged};
use super::superblock::probe_at;
use crate::format::{METADATA_SIZE, NO_TABLE, Superblock};

/// An image opened for reading; shared by threads, each of which has an [`ImageReader`].
///
/// What the image says is never trusted: whatever its bytes are, reading ends with a value or an
/// error, and needs memory for a few blocks only.
#[derive(Debug)]
pub struct Image<'a> {
    file: &'a File,
    /// Byte of the file at which the image begins.
    offset: u64,
    superblock: Superblock,
}

impl<'a> Image<'a> {
    /// Reads and checks the superblock.
    ///
    /// # Errors
    ///
    /// As [`crate::probe`], and for a compressor that is not built in.
    pub fn open(file: &'a File) -> Result<Self, ReadError> {
        Self::open_at(file, 0)
    }

    /// As [`Image::open`], for an image that begins at byte `offset` of the file.
    ///
    /// # Errors
    ///
    /// As [`Image::open`].
    pub fn open_at(file: &'a File, offset: u64) -> Result<Self, ReadError> {
        let image = Self { file, offset, superblock: probe_at(file, offset)? };
        MetadataReader::new(&image)?;
        Ok(image)
    }

    /// The superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Fills `bytes` from byte `position` of the image on.
    pub(super) fn read_exact_at(&self, bytes: &mut [u8], position: u64) -> std::io::Result<()> {
        self.file.read_exact_at(bytes, self.offset.saturating_add(position))
    }

    /// Where the root directory's inode is.
    pub fn root(&self) -> InodeReference {
        InodeReference(self.superblock.root)
    }
}

/// Reads an image, in one thread.
pub struct ImageReader<'a> {
    pub(super) image: &'a Image<'a>,
    pub(super) metadata: MetadataReader<'a>,
}

impl std::fmt::Debug for ImageReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageReader").field("image", &self.image).finish_non_exhaustive()
    }
}

impl<'a> ImageReader<'a> {
    /// A reader with caches of its own.
    ///
    /// # Errors
    ///
    /// The decompressor could not be set up.
    pub fn new(image: &'a Image<'a>) -> Result<Self, ReadError> {
        Ok(Self { image, metadata: MetadataReader::new(image)? })
    }

    /// The image that it reads.
    pub fn image(&self) -> &'a Image<'a> {
        self.image
    }

    /// Where the root directory's inode is.
    pub fn image_root(&self) -> InodeReference {
        self.image.root()
    }

    /// Reads an inode.
    ///
    /// # Errors
    ///
    /// The image cannot be read, or is damaged.
    pub fn inode(&mut self, reference: InodeReference) -> Result<Inode, ReadError> {
        let superblock = &self.image.superblock;
        let (table, end) = (superblock.inode_table, superblock.directory_table);
        self.metadata.inode(&mut Cursor::new(table, end, reference.0))
    }

    /// Calls `visit` for every inode in the order of the table, whether a directory names it or
    /// not.
    ///
    /// # Errors
    ///
    /// As [`ImageReader::inode`].
    pub fn for_each_inode(&mut self, mut visit: impl FnMut(&Inode)) -> Result<(), ReadError> {
        let superblock = &self.image.superblock;
        let (table, end) = (superblock.inode_table, superblock.directory_table);
        let mut cursor = Cursor::new(table, end, 0);
        for _ in 0..superblock.inodes {
            let inode = self.metadata.inode(&mut cursor)?;
            if let InodeKind::File(place) = &inode.kind {
                let blocks = place.block_count(superblock.block_size);
                self.metadata.skip(&mut cursor, blocks.saturating_mul(4))?;
            }
            visit(&inode);
        }
        Ok(())
    }

    /// The entries of a directory, to be taken one by one.
    pub fn entries(&self, directory: &DirectoryPlace) -> Entries {
        Entries::new(directory, &self.image.superblock)
    }

    /// The owner or group that an inode's index stands for.
    ///
    /// # Errors
    ///
    /// As [`ImageReader::inode`].
    pub fn id(&mut self, index: u16) -> Result<u32, ReadError> {
        let table = self.image.superblock.id_table;
        let ids = u64::from(self.image.superblock.ids);
        let entry = self.table_entry::<4>(table, (ids, u64::from(index)))?;
        Ok(u32::from_le_bytes(entry))
    }

    /// The same from `real` ids by index, which the file's own table may not have (see `writer`).
    ///
    /// # Errors
    ///
    /// As [`ImageReader::inode`]; an index that `real` does not have is damage.
    pub fn owner(&mut self, index: u16, real: Option<&[u32]>) -> Result<u32, ReadError> {
        let Some(real) = real else { return self.id(index) };
        let table = self.image.superblock.id_table;
        real.get(usize::from(index))
            .copied()
            .ok_or_else(|| damaged("an owner beyond its table", table))
    }

    /// An entry of a table that is found by a list of its blocks at `index`; there are `count`.
    pub(super) fn table_entry<const SIZE: usize>(
        &mut self,
        index: u64,
        (count, wanted): (u64, u64),
    ) -> Result<[u8; SIZE], ReadError> {
        if index == NO_TABLE || wanted >= count {
            return Err(damaged("a reference beyond its table", index));
        }
        let place = wanted * SIZE as u64;
        let (block, offset) = (place / METADATA_SIZE as u64, place % METADATA_SIZE as u64);
        let pointer = self.read_position(index.saturating_add(block * 8))?;
        if pointer >= index {
            return Err(damaged("a table behind its own index", index));
        }
        self.metadata.read_array(&mut Cursor::new(pointer, index, offset))
    }

    fn read_position(&self, position: u64) -> Result<u64, ReadError> {
        let mut bytes = [0; 8];
        self.image.read_exact_at(&mut bytes, position).map_err(|source| ReadError::Io {
            what: "a table",
            position,
            source,
        })?;
        Fields::new(&bytes, position).u64()
    }
}
