//! Reading ahead: the kernel asks for the next 128 KiB of a file that is read in order, which is
//! one block or less; threads that would sleep decompress those behind it.

use std::sync::Mutex;

use sarus_squash::{Extent, FilePlace};

use crate::cache::lock;
use crate::worker::Worker;

/// Bytes from what was asked for to what is read ahead.
const DISTANCE: u64 = 1 << 20;
/// How far from the last place a request still goes on from there: threads answer out of order.
const SLACK: u64 = 512 << 10;
/// Files that are watched at once.
const STREAMS: usize = 64;

/// Where the last requests for some files ended. Two files with one place here disturb each
/// other, which costs speed only.
#[derive(Debug)]
pub(crate) struct Streams(Mutex<[Stream; STREAMS]>);

#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    node: u64,
    end: u64,
}

impl Streams {
    pub(crate) fn new() -> Self {
        Self(Mutex::new([Stream::default(); STREAMS]))
    }

    /// Notes a request, and whether it goes on where others of the file ended.
    fn goes_on(&self, node: u64, start: u64, end: u64) -> bool {
        let mut streams = lock(&self.0);
        let place = usize::try_from(node % STREAMS as u64).unwrap_or(0);
        let last = std::mem::replace(&mut streams[place], Stream { node, end });
        last.node == node && start > 0 && start.abs_diff(last.end) <= SLACK
    }
}

/// A block that is likely to be asked for.
#[derive(Debug)]
pub(crate) struct Ahead {
    node: u64,
    place: FilePlace,
    block: u64,
}

impl Worker<'_> {
    /// Notes that these bytes of a file were asked for.
    pub(crate) fn look_ahead(&mut self, node: u64, place: FilePlace, start: u64, end: u64) {
        let block_size = u64::from(self.server.image.superblock().block_size);
        let next = end.saturating_add(DISTANCE.max(block_size));
        self.ahead = None;
        if next < place.size && self.server.streams.goes_on(node, start, end) {
            self.ahead = Some(Ahead { node, place, block: next / block_size });
        }
    }

    /// Decompresses the block that the last request makes likely, if there is one and nobody has
    /// it or is at it. For when there is nothing better to do.
    pub fn read_ahead(&mut self) {
        let Some(Ahead { node, place, block }) = self.ahead.take() else { return };
        // A failure is told to who asks for the block.
        let Ok(extents) = self.extents(node, &place, block, 1) else { return };
        for extent in extents {
            if let Extent::Stored { block, .. } = extent {
                self.prepare(block);
            }
        }
    }
}
