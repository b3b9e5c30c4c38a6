//! The answer to one request, written without copying the blocks that are in it.

use std::io::IoSlice;
use std::sync::Arc;

use rustix::io::Errno;

use crate::protocol::{OUT_HEADER, Output};

/// Zeros for the holes of files.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// An answer, to be written to the connection in one call.
#[derive(Debug)]
pub struct Reply {
    head: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
pub(crate) enum Piece {
    Zeros(usize),
    /// A range of a block that exists.
    Block(Arc<Vec<u8>>, std::ops::Range<usize>),
}

impl Piece {
    fn length(&self) -> usize {
        match self {
            Self::Zeros(count) => *count,
            Self::Block(_, range) => range.len(),
        }
    }
}

impl Reply {
    /// The answer to request `unique` with the fields that `fill` puts.
    pub(crate) fn new(unique: u64, fill: impl FnOnce(&mut Output)) -> Self {
        let mut output = Output(vec![0; OUT_HEADER]);
        fill(&mut output);
        let mut reply = Self { head: output.0, pieces: Vec::new() };
        reply.finish(unique, 0);
        reply
    }

    pub(crate) fn failed(unique: u64, error: Errno) -> Self {
        let mut reply = Self { head: vec![0; OUT_HEADER], pieces: Vec::new() };
        reply.finish(unique, -error.raw_os_error());
        reply
    }

    pub(crate) fn content(unique: u64, pieces: Vec<Piece>) -> Self {
        let mut reply = Self { head: vec![0; OUT_HEADER], pieces };
        reply.finish(unique, 0);
        reply
    }

    /// Writes the header, `fuse_out_header`.
    fn finish(&mut self, unique: u64, error: i32) {
        let content = self.pieces.iter().map(Piece::length).sum::<usize>();
        let length = u32::try_from(self.head.len() + content).unwrap_or(u32::MAX);
        self.head[..4].copy_from_slice(&length.to_ne_bytes());
        self.head[4..8].copy_from_slice(&error.to_ne_bytes());
        self.head[8..OUT_HEADER].copy_from_slice(&unique.to_ne_bytes());
    }

    /// The same request refused, for when the kernel does not take the answer.
    pub(crate) fn refused(&self) -> Self {
        let mut unique = [0; 8];
        unique.copy_from_slice(&self.head[8..OUT_HEADER]);
        Self::failed(u64::from_ne_bytes(unique), Errno::IO)
    }

    /// The bytes of the answer where they lie, in order.
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = vec![IoSlice::new(&self.head)];
        for piece in &self.pieces {
            match piece {
                Piece::Block(block, range) => slices.push(IoSlice::new(&block[range.clone()])),
                &Piece::Zeros(mut left) => {
                    while left > 0 {
                        let now = left.min(ZEROS.len());
                        slices.push(IoSlice::new(&ZEROS[..now]));
                        left -= now;
                    }
                }
            }
        }
        slices
    }
}
