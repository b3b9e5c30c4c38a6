//! Writes squashfs images: contents first, as they come, then the tree that names them.
//!
//! Contents are cut into blocks that a pool of threads compresses and that are appended in the
//! order of submission: the same input gives the same bytes, whatever the number of threads.
//! Contents that no file of the tree has in the end are squeezed out before the tables follow.
//! Memory: 8 blocks per thread under way, each with two buffers of `block_size` bytes; two more
//! buffers; each thread's compressor; 32 bytes per file and 4 per data block; and, at the end, the
//! directory table. With two threads and blocks of 128 KiB that is below
//! 10 MB for an image of a gigabyte.
//!
//! Knows nothing of tar or layers. Format: `crate::format`.

mod compress;
mod contents;
mod error;
mod inodes;
mod listing;
mod metadata;
mod order;
mod owners;
mod pool;
mod squeeze;
mod tables;
mod xattrs;

use std::fmt;
use std::fs::File;
use std::time::Duration;

pub use error::WriteError;

use self::contents::Contents;
use self::inodes::Inodes;
use self::order::Order;
use crate::settings::{BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, Settings};
use crate::tree::{ContentId, Tree};

/// Writes one image. Dropped before [`Writer::finish`] it leaves a file that is no image.
pub struct Writer {
    contents: Contents,
    settings: Settings,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Size of the file in bytes, padding included.
    pub bytes: u64,
    /// The image's real owners and groups by index; the file's own id table holds zeros.
    /// [`crate::restore_owners`] puts them in.
    pub ids: Vec<u32>,
    /// Inodes in the image: names minus additional hard links.
    pub inodes: u32,
    /// Time of processors that compressing blocks took, on all threads together.
    pub compressing: Duration,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("settings", &self.settings)
            .field("contents", &self.contents.list.len())
            .field("bytes", &self.contents.position)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts an image in `file`, which is empty and open for reading and writing.
    ///
    /// # Errors
    ///
    /// Settings out of range; no thread could be started.
    pub fn new(file: File, settings: &Settings) -> Result<Self, WriteError> {
        let block_size = settings.block_size;
        if !block_size.is_power_of_two() || !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block_size)
        {
            return Err(WriteError::BlockSize { given: block_size });
        }
        if !settings.compression.is_valid() {
            return Err(WriteError::Level { given: settings.compression.to_string() });
        }
        let contents = Contents::new(file, tables::data_start(settings.compression), settings)?;
        Ok(Self { contents, settings: *settings })
    }

    /// Starts the content of a regular file.
    ///
    /// # Errors
    ///
    /// [`WriteError::Order`] if one is open already.
    pub fn start_file(&mut self) -> Result<(), WriteError> {
        self.contents.start_file()
    }

    /// Adds bytes to the open file. Blocks while the threads have enough to do.
    ///
    /// # Errors
    ///
    /// The output cannot be written, or a limit is reached.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.contents.append(bytes)
    }

    /// Adds zeros to the open file, at no cost for whole blocks of them.
    ///
    /// # Errors
    ///
    /// As [`Writer::append`].
    pub fn append_zeros(&mut self, count: u64) -> Result<(), WriteError> {
        self.contents.append_zeros(count)
    }

    /// Ends the open file. Contents are numbered from 0 in the order in which they were started.
    ///
    /// # Errors
    ///
    /// As [`Writer::append`].
    pub fn end_file(&mut self) -> Result<ContentId, WriteError> {
        self.contents.end_file()
    }

    /// Writes the tree, and with it the image. Attributes other than `user.`, `trusted.` and
    /// `security.` cannot be stored (`system.posix_acl_access`, for one), nor can names beyond
    /// 255 bytes and values beyond 64 KiB: they are left out. The file is not synchronised.
    ///
    /// # Errors
    ///
    /// The tree is not one, or has what squashfs or the kernel cannot hold; the output cannot be
    /// written.
    pub fn finish(mut self, tree: &Tree) -> Result<Written, WriteError> {
        let compressing = self.contents.complete()?;
        let order = Order::of(tree, self.contents.list.len())?;
        let start = tables::data_start(self.settings.compression);
        squeeze::squeeze(&mut self.contents, &order.live, start)?;
        let mut inodes = Inodes::new(tree, &order, &self.contents, self.settings.compression)?;
        let root = inodes.write_all()?.reference();
        let ids = inodes.owners.ids.clone();
        let count = order.inodes;
        let bytes = tables::write_tables(&self.contents, inodes, (root, count), &self.settings)?;
        Ok(Written { bytes, ids, inodes: count, compressing })
    }
}
