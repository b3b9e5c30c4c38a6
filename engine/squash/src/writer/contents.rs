//! The contents of regular files: cut into blocks, compressed, appended to the image.
//!
//! Data lie in the order of submission, so that the bytes do not depend on the number of threads.
//! Knows nothing of names: which contents are part of the image is known at the end only, and
//! `squeeze` then closes the gaps.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::error::WriteError;
use super::pool::{Done, Outcome, Pool, Zeros, is_zero};
use crate::format::{BLOCK_RAW, NO_FRAGMENT};
use crate::settings::Settings;
use crate::tree::ContentId;

/// Most data blocks in an image: their sizes are kept in memory, 4 bytes each.
const BLOCKS_MAX: usize = 1 << 26;

/// A tail of zeros from this size on becomes a hole instead of a part of a fragment block.
const HOLE_TAIL_MIN: usize = 4096;

/// Where the content of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    /// Bytes in the file.
    pub(super) size: u64,
    /// Bytes of it that are in holes.
    pub(super) holes: u64,
    /// Where its data start; 0 without any.
    pub(super) start: u64,
    /// Bytes of its data in the image.
    pub(super) stored: u64,
    /// Its first entry in [`Contents::sizes`].
    first: usize,
    /// Entries it has there.
    blocks: usize,
    /// The fragment block with its tail, or [`NO_FRAGMENT`].
    pub(super) fragment: u32,
    /// Where its tail is in the uncompressed fragment block.
    pub(super) offset: u32,
}

/// A fragment block: where it is, and its size as the format has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) start: u64,
    pub(super) size: u32,
}

impl Fragment {
    /// Bytes it takes in the image.
    pub(super) fn stored(self) -> u64 {
        u64::from(self.size & !BLOCK_RAW)
    }
}

enum Purpose {
    Data { content: usize, block: usize },
    Fragment { index: usize },
}

/// All contents so far, and the output file they go to.
pub(super) struct Contents {
    pub(super) file: File,
    /// Where the next block goes.
    pub(super) position: u64,
    pub(super) list: Vec<Content>,
    pub(super) fragments: Vec<Fragment>,
    /// Sizes of all blocks, as the format has them; 0 is a hole.
    sizes: Vec<u32>,
    pool: Pool<Purpose>,
    block_size: usize,
    /// The block being filled.
    block: Vec<u8>,
    /// The fragment block being filled.
    tails: Vec<u8>,
    is_open: bool,
}

impl Contents {
    /// Starts the threads; the first block will go to `position`.
    pub(super) fn new(file: File, position: u64, settings: &Settings) -> Result<Self, WriteError> {
        let mut pool = Pool::new(settings)?;
        let (block, tails) = (pool.buffer(), pool.buffer());
        Ok(Self {
            file,
            position,
            list: Vec::new(),
            fragments: Vec::new(),
            sizes: Vec::new(),
            pool,
            block_size: settings.block_size as usize,
            block,
            tails,
            is_open: false,
        })
    }

    /// The sizes of a content's blocks.
    pub(super) fn sizes(&self, content: &Content) -> &[u32] {
        self.sizes.get(content.first..content.first + content.blocks).unwrap_or_default()
    }

    pub(super) fn start_file(&mut self) -> Result<(), WriteError> {
        if self.is_open {
            return Err(WriteError::Order("a file is open already"));
        }
        if self.list.len() >= u32::MAX as usize {
            return Err(WriteError::TooMany { what: "files", limit: u64::from(u32::MAX) });
        }
        self.is_open = true;
        self.list.push(Content {
            size: 0,
            holes: 0,
            start: 0,
            stored: 0,
            first: self.sizes.len(),
            blocks: 0,
            fragment: NO_FRAGMENT,
            offset: 0,
        });
        Ok(())
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        self.grow(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let room = self.block_size - self.block.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == self.block_size {
                self.submit_block()?;
            }
        }
        Ok(())
    }

    pub(super) fn append_zeros(&mut self, count: u64) -> Result<(), WriteError> {
        self.grow(count)?;
        let mut left = count;
        let block_size = self.block_size as u64;
        while left > 0 {
            if self.block.is_empty() && left >= block_size {
                let blocks = left / block_size;
                self.append_holes(blocks)?;
                left -= blocks * block_size;
                continue;
            }
            let room = self.block_size - self.block.len();
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(room);
            self.block.resize(self.block.len() + now, 0);
            left -= now as u64;
            if self.block.len() == self.block_size {
                self.submit_block()?;
            }
        }
        Ok(())
    }

    pub(super) fn end_file(&mut self) -> Result<ContentId, WriteError> {
        if !self.is_open {
            return Err(WriteError::Order("no file is open"));
        }
        self.is_open = false;
        let content = self.list.len() - 1;
        if !self.block.is_empty() {
            self.store_tail(content)?;
        }
        self.append_finished()?;
        Ok(ContentId(u32::try_from(content).unwrap_or(u32::MAX)))
    }

    /// Waits for all blocks; the list is complete then, and the threads may go.
    pub(super) fn complete(&mut self) -> Result<(), WriteError> {
        if self.is_open {
            return Err(WriteError::Order("a file is open still"));
        }
        self.submit_tails()?;
        while let Some(done) = self.pool.take()? {
            self.store(done)?;
        }
        Ok(())
    }

    /// Accounts for bytes that the open file gets.
    fn grow(&mut self, count: u64) -> Result<(), WriteError> {
        let Some(content) = self.list.last_mut().filter(|_content| self.is_open) else {
            return Err(WriteError::Order("no file is open"));
        };
        // Far beyond what the limit on blocks allows, so that no sum overflows.
        content.size = content
            .size
            .checked_add(count)
            .filter(|&size| size <= 1 << 60)
            .ok_or(WriteError::TooMany { what: "bytes in a file", limit: 1 << 60 })?;
        Ok(())
    }

    /// Entries for `count` blocks of the open file.
    fn add_blocks(&mut self, count: u64) -> Result<(), WriteError> {
        let all = usize::try_from(count).ok().and_then(|count| self.sizes.len().checked_add(count));
        let Some(all) = all.filter(|&all| all <= BLOCKS_MAX) else {
            return Err(WriteError::TooMany { what: "data blocks", limit: BLOCKS_MAX as u64 });
        };
        if let Some(content) = self.list.last_mut() {
            content.blocks += all - self.sizes.len();
        }
        self.sizes.resize(all, 0);
        Ok(())
    }

    fn append_holes(&mut self, blocks: u64) -> Result<(), WriteError> {
        self.add_blocks(blocks)?;
        if let Some(content) = self.list.last_mut() {
            content.holes += blocks * self.block_size as u64;
        }
        Ok(())
    }

    fn submit_block(&mut self) -> Result<(), WriteError> {
        self.add_blocks(1)?;
        let fresh = self.pool.buffer();
        let block = std::mem::replace(&mut self.block, fresh);
        let purpose = Purpose::Data { content: self.list.len() - 1, block: self.sizes.len() - 1 };
        self.submit(purpose, Zeros::AreHoles, block)
    }

    fn store_tail(&mut self, content: usize) -> Result<(), WriteError> {
        let length = self.block.len();
        if length >= HOLE_TAIL_MIN && is_zero(&self.block) {
            self.block.clear();
            self.add_blocks(1)?;
            self.list[content].holes += length as u64;
            return Ok(());
        }
        if self.tails.len() + length > self.block_size {
            self.submit_tails()?;
        }
        self.list[content].fragment = u32::try_from(self.fragments.len()).unwrap_or(NO_FRAGMENT);
        self.list[content].offset = u32::try_from(self.tails.len()).unwrap_or(u32::MAX);
        self.tails.extend_from_slice(&self.block);
        self.block.clear();
        Ok(())
    }

    fn submit_tails(&mut self) -> Result<(), WriteError> {
        if self.tails.is_empty() {
            return Ok(());
        }
        let fresh = self.pool.buffer();
        let tails = std::mem::replace(&mut self.tails, fresh);
        let purpose = Purpose::Fragment { index: self.fragments.len() };
        self.fragments.push(Fragment { start: 0, size: 0 });
        self.submit(purpose, Zeros::AreData, tails)
    }

    fn submit(&mut self, purpose: Purpose, zeros: Zeros, bytes: Vec<u8>) -> Result<(), WriteError> {
        if self.pool.is_full()
            && let Some(done) = self.pool.take()?
        {
            self.store(done)?;
        }
        self.pool.submit(purpose, zeros, bytes)?;
        self.append_finished()
    }

    fn append_finished(&mut self) -> Result<(), WriteError> {
        while let Some(done) = self.pool.try_take()? {
            self.store(done)?;
        }
        Ok(())
    }

    /// Appends a compressed block to the image.
    fn store(&mut self, done: Done<Purpose>) -> Result<(), WriteError> {
        let (start, bytes) = (self.position, done.bytes());
        self.file
            .write_all_at(bytes, start)
            .map_err(|source| WriteError::Write { offset: start, source })?;
        self.position += bytes.len() as u64;
        let raw = if done.outcome == Outcome::Raw { BLOCK_RAW } else { 0 };
        let size = u32::try_from(bytes.len()).unwrap_or(0) | raw;
        match done.purpose {
            Purpose::Fragment { index } => self.fragments[index] = Fragment { start, size },
            Purpose::Data { content, .. } if done.outcome == Outcome::Hole => {
                self.list[content].holes += done.bytes_in() as u64;
            }
            Purpose::Data { content, block } => {
                let content = &mut self.list[content];
                if content.stored == 0 {
                    content.start = start;
                }
                content.stored += bytes.len() as u64;
                self.sizes[block] = size;
            }
        }
        self.pool.recycle(done);
        Ok(())
    }
}
