//! Metadata blocks: 8 KiB of a table, compressed by themselves, behind a header of two bytes.

use super::compress::BlockCompressor;
use super::error::WriteError;
use crate::format::{METADATA_RAW, METADATA_SIZE};
use crate::settings::Compression;

/// Where something is in a table: its metadata block, and the place in it after decompression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Bytes from the start of the table to the block's header.
    pub(super) block: u32,
    /// Bytes into the uncompressed block.
    pub(super) offset: u16,
}

impl Place {
    /// As inode references and the like have it.
    pub(super) fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }
}

/// A table being made, in memory.
pub(super) struct MetadataWriter {
    compressor: BlockCompressor,
    pending: Vec<u8>,
    compressed: Vec<u8>,
    stored: Vec<u8>,
    /// Where each finished block starts.
    starts: Vec<u64>,
}

impl MetadataWriter {
    pub(super) fn new(compression: Compression) -> Result<Self, WriteError> {
        let compressor = BlockCompressor::new(compression)
            .map_err(|source| WriteError::Compress { bytes: 0, source })?;
        Ok(Self {
            compressor,
            pending: Vec::with_capacity(METADATA_SIZE),
            compressed: Vec::with_capacity(METADATA_SIZE),
            stored: Vec::new(),
            starts: Vec::new(),
        })
    }

    /// Where the next byte will be.
    pub(super) fn place(&self) -> Result<Place, WriteError> {
        let block = u32::try_from(self.stored.len()).map_err(|_large| WriteError::TooMany {
            what: "bytes in a metadata table",
            limit: u64::from(u32::MAX),
        })?;
        Ok(Place { block, offset: u16::try_from(self.pending.len()).unwrap_or(0) })
    }

    pub(super) fn append(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            let room = METADATA_SIZE - self.pending.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == METADATA_SIZE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// The table, and where each of its blocks starts in it.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, Vec<u64>), WriteError> {
        self.flush()?;
        Ok((self.stored, self.starts))
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.starts.push(self.stored.len() as u64);
        let smaller = self.compressor.compress(&self.pending, &mut self.compressed);
        let bytes = self.pending.len();
        let smaller = smaller.map_err(|source| WriteError::Compress { bytes, source })?;
        let (block, raw) =
            if smaller { (&self.compressed, 0) } else { (&self.pending, METADATA_RAW) };
        let header = u16::try_from(block.len()).unwrap_or(0) | raw;
        self.stored.extend_from_slice(&header.to_le_bytes());
        self.stored.extend_from_slice(block);
        self.pending.clear();
        Ok(())
    }
}
