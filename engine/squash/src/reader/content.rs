//! The contents of files, a block at a time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::blocks::{BlockReader, StoredBlock};
use super::error::ReadError;
use super::image::{Image, ImageReader};
use super::inode::FilePlace;
use super::metadata::damaged;
use crate::format::BLOCK_RAW;

/// Bytes of decompressed fragment blocks that are kept, whatever the block size.
const FRAGMENTS_KEPT: usize = 8 << 20;

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// So many zeros that are not stored.
    Hole(u64),
    /// Bytes, at most a block.
    Data(&'a [u8]),
}

/// A slot is filled by the first thread that needs it; others wait for that.
type Slot = Arc<Mutex<Option<Arc<Vec<u8>>>>>;

/// Fragment blocks, shared by threads: many small files have their content in one.
#[derive(Debug, Default)]
pub struct FragmentCache {
    slots: Mutex<VecDeque<(u32, Slot)>>,
}

impl FragmentCache {
    fn slot(&self, index: u32, keep: usize) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = slots.iter().position(|(known, _slot)| *known == index)
            && let Some((_, slot)) = slots.remove(place)
        {
            slots.push_front((index, Arc::clone(&slot)));
            return slot;
        }
        let slot = Slot::default();
        slots.push_front((index, Arc::clone(&slot)));
        slots.truncate(keep);
        slot
    }
}

/// Reads contents, in one thread.
pub struct ContentReader<'a> {
    image: &'a Image<'a>,
    reader: ImageReader<'a>,
    blocks: BlockReader<'a>,
    fragments: Arc<FragmentCache>,
    plain: Vec<u8>,
}

impl std::fmt::Debug for ContentReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ContentReader").field("image", &self.image).finish_non_exhaustive()
    }
}

impl<'a> ContentReader<'a> {
    /// A reader that shares `fragments` with those of other threads.
    ///
    /// # Errors
    ///
    /// The decompressor could not be set up.
    pub fn new(image: &'a Image<'a>, fragments: Arc<FragmentCache>) -> Result<Self, ReadError> {
        Ok(Self {
            image,
            reader: ImageReader::new(image)?,
            blocks: BlockReader::new(image)?,
            fragments,
            plain: Vec::new(),
        })
    }

    /// Calls `take` with each piece of a file, in order; together they are the file's size.
    ///
    /// # Errors
    ///
    /// The image cannot be read, or is damaged; whatever `take` returns.
    pub fn read<E: From<ReadError>>(
        &mut self,
        file: &FilePlace,
        mut take: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let block_size = u64::from(self.image.superblock().block_size);
        let mut sizes = file.blocks;
        let (mut position, mut left) = (file.start, file.size);
        for _ in 0..file.block_count(self.image.superblock().block_size) {
            let size = self.reader.metadata.read_array(&mut sizes)?;
            let size = u32::from_le_bytes(size);
            let length = left.min(block_size);
            left -= length;
            if size == 0 {
                take(Piece::Hole(length))?;
                continue;
            }
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let block = StoredBlock { position, size, length, is_fragment: false };
            self.blocks.read(block, &mut self.plain)?;
            position = position.saturating_add(u64::from(size & !BLOCK_RAW));
            take(Piece::Data(&self.plain))?;
        }
        if left > 0 {
            let block = self.fragment(file.fragment)?;
            let start = file.offset as usize;
            let end = start.saturating_add(usize::try_from(left).unwrap_or(usize::MAX));
            let tail = block.get(start..end);
            let position = self.image.superblock().fragment_table;
            take(Piece::Data(
                tail.ok_or_else(|| damaged("a tail beyond its fragment", position))?,
            ))?;
        }
        Ok(())
    }

    /// A fragment block, decompressed.
    fn fragment(&mut self, index: u32) -> Result<Arc<Vec<u8>>, ReadError> {
        let superblock = self.image.superblock();
        let keep = (FRAGMENTS_KEPT / superblock.block_size as usize).max(1);
        let slot = self.fragments.slot(index, keep);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = &*slot {
            return Ok(Arc::clone(block));
        }
        let stored = self.reader.fragment(index)?;
        self.blocks.read(stored, &mut self.plain)?;
        let block = Arc::new(self.plain.clone());
        *slot = Some(Arc::clone(&block));
        Ok(block)
    }
}
