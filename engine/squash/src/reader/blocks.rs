//! Where the blocks of a file are, so that a reader can begin anywhere, and one block at a time.

use super::bytes::Fields;
use super::decompress::BlockDecompressor;
use super::error::ReadError;
use super::image::{Image, ImageReader};
use super::inode::FilePlace;
use super::metadata::{Cursor, damaged};
use crate::format::{BLOCK_RAW, NO_FRAGMENT};

/// Blocks from one mark to the next; so many sizes are added up to find a block.
const MARK_EVERY: u64 = 512;
/// Bytes of so many sizes.
const MARK_BYTES: usize = 2048;
/// Marks that are kept for one file: 2 MiB of them.
const MARKS_MAX: usize = 1 << 16;
/// Blocks of a file that is read from the midst: a list of 512 MiB, which no real image has.
const BLOCKS_MAX: u64 = 1 << 27;

/// A block of data as it is stored; its identity in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoredBlock {
    /// Where it is.
    pub(super) position: u64,
    /// Its bytes there, as the format has it.
    pub(super) size: u32,
    /// Its bytes when decompressed; the most there can be in a block of fragments.
    pub(super) length: u32,
    pub(super) is_fragment: bool,
}

impl StoredBlock {
    /// Where it is in the image.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    fn name(&self) -> &'static str {
        if self.is_fragment { "a fragment block" } else { "a data block" }
    }

    /// Whether it holds the tails of several files.
    pub(crate) fn is_fragment(&self) -> bool {
        self.is_fragment
    }

    /// Whether both have as many bytes in their images, compressed or not alike.
    pub(crate) fn has_size_of(&self, other: &Self) -> bool {
        (self.size, self.length, self.is_fragment) == (other.size, other.length, other.is_fragment)
    }
}

/// A piece of a file, a block long at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// So many zeros that are not stored.
    Hole(u32),
    /// `length` bytes from `start` of a block.
    Stored {
        /// The block.
        block: StoredBlock,
        /// Bytes into the decompressed block.
        start: u32,
        /// Bytes.
        length: u32,
    },
}

/// Places in the list of a long file's blocks, so that it is not read from its start each time.
///
/// Belongs to one file. Grows as the file is read, to 2 MiB at most.
#[derive(Debug, Default, Clone)]
pub struct BlockMarks(Vec<Mark>);

#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Where the block's size is.
    sizes: Cursor,
    /// Where the block is.
    position: u64,
}

/// A walk through a file's pieces, from its start to its end.
#[derive(Debug, Clone)]
pub(crate) struct ExtentWalk {
    index: u64,
    mark: Mark,
}

impl ExtentWalk {
    pub(crate) fn new(file: &FilePlace) -> Self {
        Self { index: 0, mark: Mark { sizes: file.blocks, position: file.start } }
    }
}

impl BlockMarks {
    /// Whether marks would be made for a file of so many bytes at all.
    pub fn help(size: u64, block_size: u32) -> bool {
        size / u64::from(block_size) > MARK_EVERY
    }

    /// The last mark before block `index`, and the block it is at.
    fn before(&self, index: u64, file: &FilePlace) -> (Mark, u64) {
        let wanted = usize::try_from(index / MARK_EVERY).unwrap_or(usize::MAX);
        let count = wanted.min(self.0.len());
        let start = Mark { sizes: file.blocks, position: file.start };
        let mark = count.checked_sub(1).and_then(|last| self.0.get(last));
        (mark.copied().unwrap_or(start), count as u64 * MARK_EVERY)
    }

    /// Remembers where block `index` is.
    fn add(&mut self, index: u64, mark: Mark) {
        let expected = (self.0.len() as u64 + 1) * MARK_EVERY;
        if index == expected && self.0.len() < MARKS_MAX {
            self.0.push(mark);
        }
    }
}

impl ImageReader<'_> {
    /// The pieces of a file from block `first` on, `count` of them at most, in order. None beyond
    /// the end of the file.
    ///
    /// # Errors
    ///
    /// The image cannot be read, or is damaged.
    pub fn extents(
        &mut self,
        file: &FilePlace,
        marks: &mut BlockMarks,
        first: u64,
        count: u64,
    ) -> Result<Vec<Extent>, ReadError> {
        let block_size = u64::from(self.image.superblock().block_size);
        let listed = self.listed(file)?;
        let end = first.saturating_add(count).min(file.size.div_ceil(block_size));
        let mark = self.find_block(file, marks, first.min(listed))?;
        let mut walk = ExtentWalk { index: first, mark };
        let mut extents = Vec::new();
        while walk.index < end {
            extents.extend(self.next_extent(file, &mut walk)?);
        }
        Ok(extents)
    }

    /// The piece of a file at which a walk is; none at the file's end.
    pub(crate) fn next_extent(
        &mut self,
        file: &FilePlace,
        walk: &mut ExtentWalk,
    ) -> Result<Option<Extent>, ReadError> {
        let block_size = self.image.superblock().block_size;
        let listed = self.listed(file)?;
        let begin = walk.index.saturating_mul(u64::from(block_size));
        let Some(left) = file.size.checked_sub(begin).filter(|&left| left > 0) else {
            return Ok(None);
        };
        let length = u32::try_from(left).unwrap_or(u32::MAX).min(block_size);
        walk.index += 1;
        if walk.index > listed {
            let block = self.fragment(file.fragment)?;
            return Ok(Some(Extent::Stored { block, start: file.offset, length }));
        }
        let mark = &mut walk.mark;
        let size = u32::from_le_bytes(self.metadata.read_array(&mut mark.sizes)?);
        if size == 0 {
            return Ok(Some(Extent::Hole(length)));
        }
        let block = StoredBlock { position: mark.position, size, length, is_fragment: false };
        mark.position = mark.position.saturating_add(u64::from(size & !BLOCK_RAW));
        Ok(Some(Extent::Stored { block, start: 0, length }))
    }

    /// Blocks in a file's list, where there are not too many.
    fn listed(&self, file: &FilePlace) -> Result<u64, ReadError> {
        let listed = file.block_count(self.image.superblock().block_size);
        if listed > BLOCKS_MAX {
            return Err(damaged("a file of too many blocks", file.start));
        }
        Ok(listed)
    }

    /// Adds up the sizes of the blocks before `index`.
    fn find_block(
        &mut self,
        file: &FilePlace,
        marks: &mut BlockMarks,
        index: u64,
    ) -> Result<Mark, ReadError> {
        let (mut mark, mut at) = marks.before(index, file);
        let mut bytes = [0; MARK_BYTES];
        while at < index {
            let count = (index - at).min(MARK_EVERY);
            let length = usize::try_from(4 * count).unwrap_or(MARK_BYTES);
            let bytes = &mut bytes[..length.min(MARK_BYTES)];
            self.metadata.read(&mut mark.sizes, bytes)?;
            let mut fields = Fields::new(bytes, file.start);
            for _ in 0..count {
                let size = fields.u32()? & !BLOCK_RAW;
                mark.position = mark.position.saturating_add(u64::from(size));
            }
            at += count;
            marks.add(at, mark);
        }
        Ok(mark)
    }

    /// A block of fragments by its number.
    pub(super) fn fragment(&mut self, index: u32) -> Result<StoredBlock, ReadError> {
        let superblock = self.image.superblock();
        let table = superblock.fragment_table;
        if index == NO_FRAGMENT {
            return Err(damaged("a file without its tail", table));
        }
        let wanted = (u64::from(superblock.fragments), u64::from(index));
        let length = superblock.block_size;
        let entry = self.table_entry::<16>(table, wanted)?;
        let mut fields = Fields::new(&entry, table);
        let (position, size) = (fields.u64()?, fields.u32()?);
        Ok(StoredBlock { position, size, length, is_fragment: true })
    }
}

/// Reads and decompresses blocks, in one thread.
pub struct BlockReader<'a> {
    image: &'a Image<'a>,
    decompressor: BlockDecompressor,
    stored: Vec<u8>,
}

impl std::fmt::Debug for BlockReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockReader").field("image", &self.image).finish_non_exhaustive()
    }
}

impl<'a> BlockReader<'a> {
    /// A reader with a decompressor of its own.
    ///
    /// # Errors
    ///
    /// The decompressor could not be set up.
    pub fn new(image: &'a Image<'a>) -> Result<Self, ReadError> {
        let decompressor = BlockDecompressor::new(image.superblock().compressor)?;
        Ok(Self { image, decompressor, stored: Vec::new() })
    }

    /// Reads a block into `plain`, whose content is replaced. Takes no more memory than the
    /// block can need.
    ///
    /// # Errors
    ///
    /// The image cannot be read, or is damaged; `plain` holds anything then.
    pub fn read(&mut self, block: StoredBlock, plain: &mut Vec<u8>) -> Result<(), ReadError> {
        let StoredBlock { position, size, length, is_fragment } = block;
        let what = block.name();
        let is_raw = size & BLOCK_RAW != 0;
        if is_raw {
            self.read_stored(block, plain)?;
        } else {
            let mut stored = std::mem::take(&mut self.stored);
            let read = self.read_stored(block, &mut stored);
            self.stored = stored;
            read?;
            self.decompressor
                .decompress(&self.stored, plain, length as usize)
                .map_err(|source| ReadError::Decompress { what, position, source })?;
        }
        if !is_fragment && plain.len() != length as usize {
            return Err(damaged("a data block of a wrong length", position));
        }
        Ok(())
    }

    /// Reads a block as it is stored into `stored`, whose content is replaced.
    pub(crate) fn read_stored(
        &self,
        block: StoredBlock,
        stored: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let position = block.position;
        let size = (block.size & !BLOCK_RAW) as usize;
        if size == 0 || size > self.image.superblock().block_size as usize {
            return Err(damaged("a block of an impossible size", position));
        }
        stored.resize(size, 0);
        let failed = |source| ReadError::Io { what: block.name(), position, source };
        self.image.read_exact_at(stored, position).map_err(failed)
    }
}
