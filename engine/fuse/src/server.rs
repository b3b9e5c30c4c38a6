//! What all threads share, and what the kernel is told at the start.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::Errno;
use sarus_squash::{BlockMarks, Image, InodeReference, StoredBlock};

use crate::ahead::Streams;
use crate::cache::{Cache, Weight};
use crate::listing::{Listing, Resting};
use crate::protocol::{InitIn, InitOut, MAJOR, MINOR_MIN, ROOT, Request, init};
use crate::reply::Reply;

/// Bytes of decompressed blocks that are kept, whatever the block size.
pub const BLOCKS_KEPT: usize = 32 << 20;
/// Bytes of listings that are kept.
pub const LISTINGS_KEPT: usize = 16 << 20;
/// Bytes of places in the block lists of long files that are kept.
const MARKS_KEPT: usize = 4 << 20;

/// Most bytes that the kernel asks for at once, in a read or in a listing.
pub(crate) const READ_MAX: u32 = 1 << 20;

/// Requests that the kernel may have pending of its own accord (reading ahead). Its default of
/// 12 would leave threads of a large node idle.
const BACKGROUND_MAX: u16 = 64;

/// An image being served.
#[derive(Debug)]
pub struct Server<'a> {
    pub(crate) image: &'a Image<'a>,
    pub(crate) blocks: Cache<StoredBlock, Vec<u8>>,
    pub(crate) listings: Cache<u64, Listing>,
    pub(crate) marks: Cache<u64, Mutex<BlockMarks>>,
    pub(crate) resting: Mutex<Option<Resting>>,
    pub(crate) streams: Streams,
    pub(crate) lists_trusted: bool,
    /// The flags of the connection: [`crate::protocol::init`].
    pub(crate) agreed: AtomicU32,
    page_size: usize,
}

impl Weight for Vec<u8> {
    fn weight(&self) -> usize {
        // With what the cache itself needs for each.
        self.capacity() + 256
    }
}

impl Weight for Mutex<BlockMarks> {
    fn weight(&self) -> usize {
        // What they may grow to in files of everyday length: 64 GiB in blocks of 128 KiB.
        32 << 10
    }
}

impl<'a> Server<'a> {
    /// A server for `image`, on a machine with pages of that size.
    ///
    /// `lists_trusted` says whether lists of attributes hold those of `trusted.`: the kernel lets
    /// only root of the initial user namespace read them, and overlayfs fails to copy a file up
    /// that has an attribute which it can list and not read.
    pub fn new(image: &'a Image<'a>, page_size: usize, lists_trusted: bool) -> Self {
        Self {
            image,
            blocks: Cache::new(BLOCKS_KEPT),
            listings: Cache::new(LISTINGS_KEPT),
            marks: Cache::new(MARKS_KEPT),
            resting: Mutex::new(None),
            streams: Streams::new(),
            lists_trusted,
            agreed: AtomicU32::new(0),
            page_size,
        }
    }

    /// Answers `FUSE_INIT`: the kernel caches all it can, and asks in parallel.
    pub(crate) fn greet(&self, request: &Request<'_>) -> Result<Reply, Errno> {
        let asked = InitIn::parse(request.body).ok_or(Errno::INVAL)?;
        if asked.major < MAJOR || (asked.major == MAJOR && asked.minor < MINOR_MIN) {
            return Err(Errno::PROTO);
        }
        let wanted = init::ASYNC_READ
            | init::DO_READDIRPLUS
            | init::READDIRPLUS_AUTO
            | init::NO_OPEN_SUPPORT
            | init::NO_OPENDIR_SUPPORT
            | init::PARALLEL_DIROPS
            | init::CACHE_SYMLINKS
            | init::MAX_PAGES;
        let flags = wanted & asked.flags;
        self.agreed.store(flags, Ordering::Relaxed);
        let pages = READ_MAX as usize / self.page_size.max(1);
        let answer = InitOut {
            max_readahead: asked.max_readahead.min(READ_MAX),
            flags,
            requests: BACKGROUND_MAX,
            congestion: BACKGROUND_MAX / 4 * 3,
            max_pages: u16::try_from(pages.max(1)).unwrap_or(u16::MAX),
        };
        Ok(Reply::new(request.unique, |output| output.init(&answer)))
    }

    /// The number by which the kernel knows an inode; none of another inode's.
    pub(crate) fn node(&self, inode: InodeReference) -> u64 {
        if inode == self.image.root() { ROOT } else { inode.to_bits() + ROOT + 1 }
    }

    /// The inode of a number.
    pub(crate) fn inode(&self, node: u64) -> Result<InodeReference, Errno> {
        if node == ROOT {
            return Ok(self.image.root());
        }
        let bits = node.checked_sub(ROOT + 1).ok_or(Errno::STALE)?;
        InodeReference::from_bits(bits).ok_or(Errno::STALE)
    }
}
