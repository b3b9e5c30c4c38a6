//! The contents of regular files: cut into blocks, compressed, appended to the image.
//!
//! Data lie in the order of submission, so that the bytes do not depend on the number of threads.
//! Knows nothing of names: which contents are part of the image is known at the end only, and
//! `squeeze` then closes the gaps.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

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
    /// Where its data start; 0 without any.
    pub(super) start: u64,
    /// Its first entry in [`Contents::sizes`].
    first: u32,
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

    /// The sizes of a content's blocks, as the format has them; 0 is a hole. A tail that is in no
    /// fragment block has a block of its own.
    pub(super) fn sizes(&self, content: &Content) -> &[u32] {
        let (whole, tail) =
            (content.size / self.block_size as u64, content.size % self.block_size as u64);
        let has_block = tail > 0 && content.fragment == NO_FRAGMENT;
        let blocks = usize::try_from(whole).unwrap_or(usize::MAX) + usize::from(has_block);
        let first = content.first as usize;
        self.sizes.get(first..first.saturating_add(blocks)).unwrap_or_default()
    }

    /// Bytes of a content that are in holes.
    pub(super) fn holes(&self, content: &Content) -> u64 {
        let block_size = self.block_size as u64;
        let holes = (0..).zip(self.sizes(content)).filter(|(_, size)| **size == 0);
        holes.map(|(block, _): (u64, _)| block_size.min(content.size - block * block_size)).sum()
    }

    /// Bytes of a content's data in the image, without its tail.
    pub(super) fn stored(&self, content: &Content) -> u64 {
        self.sizes(content).iter().map(|size| u64::from(size & !BLOCK_RAW)).sum()
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
            start: 0,
            first: u32::try_from(self.sizes.len()).unwrap_or(u32::MAX),
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
                self.add_blocks(blocks)?;
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

    /// Waits for all blocks, and ends the threads; the list is complete then. The time of processors
    /// that the threads took.
    pub(super) fn complete(&mut self) -> Result<Duration, WriteError> {
        if self.is_open {
            return Err(WriteError::Order("a file is open still"));
        }
        self.submit_tails()?;
        while let Some(done) = self.pool.take()? {
            self.store(done)?;
        }
        Ok(self.pool.end())
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

    /// Entries for `count` blocks of the open file, which are holes until they are stored.
    fn add_blocks(&mut self, count: u64) -> Result<(), WriteError> {
        let all = usize::try_from(count).ok().and_then(|count| self.sizes.len().checked_add(count));
        let Some(all) = all.filter(|&all| all <= BLOCKS_MAX) else {
            return Err(WriteError::TooMany { what: "data blocks", limit: BLOCKS_MAX as u64 });
        };
        self.sizes.resize(all, 0);
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
            return self.add_blocks(1);
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
            Purpose::Data { .. } if done.outcome == Outcome::Hole => {}
            Purpose::Data { content, block } => {
                let content = &mut self.list[content];
                if content.start == 0 {
                    content.start = start;
                }
                self.sizes[block] = size;
            }
        }
        self.pool.recycle(done);
        Ok(())
    }
}
