//! Metadata blocks and what is read across them.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use super::decompress::BlockDecompressor;
use super::error::ReadError;
use super::image::Image;
use crate::format::{METADATA_RAW, METADATA_SIZE};

/// Decompressed blocks that are kept.
const CACHE_BLOCKS: usize = 32;

/// A place in a table of metadata blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Where the block is in the image.
    block: u64,
    /// Bytes into the block.
    offset: usize,
    /// Where no block of the table can be.
    end: u64,
}

impl Cursor {
    /// A place by its reference: the block relative to `table` in the upper bits, the bytes into
    /// it in the lower 16.
    pub(super) fn new(table: u64, end: u64, reference: u64) -> Self {
        let block = table.saturating_add(reference >> 16);
        Self { block, offset: (reference & 0xffff) as usize, end }
    }

    pub(super) fn position(self) -> u64 {
        self.block
    }
}

struct Block {
    position: u64,
    /// Where the next one is.
    next: u64,
    bytes: Rc<Vec<u8>>,
}

/// Reads metadata blocks, and keeps the last ones.
pub(super) struct MetadataReader<'a> {
    image: &'a Image<'a>,
    decompressor: BlockDecompressor,
    cache: VecDeque<Block>,
    stored: Vec<u8>,
}

impl<'a> MetadataReader<'a> {
    pub(super) fn new(image: &'a Image<'a>) -> Result<Self, ReadError> {
        Ok(Self {
            image,
            decompressor: BlockDecompressor::new(image.superblock().compressor)?,
            cache: VecDeque::new(),
            stored: Vec::new(),
        })
    }

    /// Fills `out` from `cursor`, which moves on.
    pub(super) fn read(&mut self, cursor: &mut Cursor, out: &mut [u8]) -> Result<(), ReadError> {
        let mut filled = 0;
        while filled < out.len() {
            let (block, next) = self.block(*cursor)?;
            let rest = block.get(cursor.offset..).unwrap_or_default();
            if rest.is_empty() {
                if block.is_empty() || cursor.offset > block.len() {
                    return Err(damaged("a reference beyond its block", cursor.block));
                }
                *cursor = Cursor { block: next, offset: 0, end: cursor.end };
                continue;
            }
            let count = rest.len().min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&rest[..count]);
            filled += count;
            cursor.offset += count;
        }
        Ok(())
    }

    pub(super) fn read_array<const SIZE: usize>(
        &mut self,
        cursor: &mut Cursor,
    ) -> Result<[u8; SIZE], ReadError> {
        let mut bytes = [0; SIZE];
        self.read(cursor, &mut bytes)?;
        Ok(bytes)
    }

    /// Passes over `count` bytes.
    pub(super) fn skip(&mut self, cursor: &mut Cursor, mut count: u64) -> Result<(), ReadError> {
        while count > 0 {
            let mut one = [0];
            let (block, _next) = self.block(*cursor)?;
            let rest = block.len().saturating_sub(cursor.offset) as u64;
            if rest == 0 {
                // Moves on to the next block, or fails.
                self.read(cursor, &mut one)?;
                count -= 1;
                continue;
            }
            let now = usize::try_from(rest.min(count)).unwrap_or(0);
            cursor.offset += now;
            count -= now as u64;
        }
        Ok(())
    }

    /// The block at a cursor, and where the next one is.
    fn block(&mut self, cursor: Cursor) -> Result<(Rc<Vec<u8>>, u64), ReadError> {
        let position = cursor.block;
        if let Some(place) = self.cache.iter().position(|block| block.position == position)
            && position < cursor.end
        {
            let block = &self.cache[place];
            let found = (Rc::clone(&block.bytes), block.next);
            self.cache.swap(0, place);
            return Ok(found);
        }
        if position.saturating_add(2) > cursor.end {
            return Err(damaged("a reference beyond its table", position));
        }
        let mut header = [0; 2];
        self.read_image(&mut header, position)?;
        let header = u16::from_le_bytes(header);
        let size = usize::from(header & !METADATA_RAW);
        let next = position + 2 + size as u64;
        if size == 0 || size > METADATA_SIZE || next > self.image.superblock().bytes_used {
            return Err(damaged("a metadata block of an impossible size", position));
        }
        let mut stored = std::mem::take(&mut self.stored);
        stored.resize(size, 0);
        self.read_image(&mut stored, position + 2)?;
        let mut bytes = Vec::new();
        if header & METADATA_RAW == 0 {
            self.decompressor.decompress(&stored, &mut bytes, METADATA_SIZE).map_err(|source| {
                ReadError::Decompress { what: "a metadata block", position, source }
            })?;
        } else {
            bytes.extend_from_slice(&stored);
        }
        self.stored = stored;
        let bytes = Rc::new(bytes);
        self.cache.push_front(Block { position, next, bytes: Rc::clone(&bytes) });
        self.cache.truncate(CACHE_BLOCKS);
        Ok((bytes, next))
    }

    fn read_image(&self, out: &mut [u8], position: u64) -> Result<(), ReadError> {
        let failed = |source: io::Error| ReadError::Io { what: "metadata", position, source };
        self.image.read_exact_at(out, position).map_err(failed)
    }
}

pub(super) fn damaged(what: &'static str, position: u64) -> ReadError {
    ReadError::Damaged { what, position }
}
