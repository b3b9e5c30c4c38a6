//! Contents of files.

use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use sarus_squash::{BlockMarks, Extent, FilePlace, InodeKind, StoredBlock};

use crate::cache::lock;
use crate::protocol::{ReadIn, Request};
use crate::reply::{Piece, Reply};
use crate::server::READ_MAX;
use crate::worker::{Worker, unreadable};

impl Worker<'_> {
    /// Bytes of a file; fewer than asked for at its end only.
    pub(crate) fn read(&mut self, request: &Request<'_>) -> Result<Reply, Errno> {
        let asked = ReadIn::parse(request.body).ok_or(Errno::INVAL)?;
        let place = match self.load(request.node)?.kind {
            InodeKind::File(place) => place,
            InodeKind::Directory(_) => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        };
        // Pages may be larger than 4 KiB, and the kernel asks for one at least.
        let size = asked.size.min(READ_MAX.max(1 << 16));
        let end = asked.offset.saturating_add(u64::from(size)).min(place.size);
        if asked.offset >= end {
            return Ok(Reply::content(request.unique, Vec::new()));
        }
        let block_size = u64::from(self.server.image.superblock().block_size);
        let (first, last) = (asked.offset / block_size, (end - 1) / block_size);
        let extents = self.extents(request.node, &place, first, last - first + 1)?;
        let mut at = first * block_size;
        let mut pieces = Vec::with_capacity(extents.len());
        for extent in extents {
            let length = length(extent);
            let from = asked.offset.saturating_sub(at).min(length);
            let to = (end - at).min(length);
            pieces.push(self.piece(extent, (from, to))?);
            at += length;
        }
        self.look_ahead(request.node, place, asked.offset, end);
        Ok(Reply::content(request.unique, pieces))
    }

    pub(crate) fn extents(
        &mut self,
        node: u64,
        place: &FilePlace,
        first: u64,
        count: u64,
    ) -> Result<Vec<Extent>, Errno> {
        let block_size = self.server.image.superblock().block_size;
        if !BlockMarks::help(place.size, block_size) {
            let mut none = BlockMarks::default();
            return self.reader.extents(place, &mut none, first, count).map_err(unreadable);
        }
        let marks = self.server.marks.get(node, || Ok(Mutex::default()))?;
        let mut marks = lock(&marks);
        self.reader.extents(place, &mut marks, first, count).map_err(unreadable)
    }

    /// The bytes `from` to `to` of an extent.
    fn piece(&mut self, extent: Extent, (from, to): (u64, u64)) -> Result<Piece, Errno> {
        let length = usize::try_from(to.saturating_sub(from)).map_err(|_too_long| Errno::IO)?;
        let (block, start) = match extent {
            Extent::Hole(_) => return Ok(Piece::Zeros(length)),
            Extent::Stored { block, start, .. } => (block, u64::from(start)),
        };
        let block = self.block(block)?;
        let start = usize::try_from(start + from).map_err(|_too_long| Errno::IO)?;
        let range = start..start.saturating_add(length);
        if range.end > block.len() {
            return Err(Errno::IO);
        }
        Ok(Piece::Block(block, range))
    }

    /// Has a block decompressed before it is asked for.
    pub(crate) fn prepare(&mut self, block: StoredBlock) {
        if self.server.blocks.lacks(&block) {
            let _told_later = self.block(block);
        }
    }

    /// A block, decompressed by this thread or by another.
    fn block(&mut self, block: StoredBlock) -> Result<Arc<Vec<u8>>, Errno> {
        let server = self.server;
        let read = || {
            let mut plain = Vec::new();
            self.blocks.read(block, &mut plain)?;
            Ok(plain)
        };
        server.blocks.get(block, read).map_err(unreadable)
    }
}

fn length(extent: Extent) -> u64 {
    match extent {
        Extent::Hole(length) | Extent::Stored { length, .. } => u64::from(length),
    }
}
