//! Metadata blocks: 8 KiB of a table, compressed by themselves, behind a header of two bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

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

/// Bytes of a table that goes to a file as it is made which are kept until they are written.
const BUFFER: usize = 256 << 10;

/// A table being made, in memory or in a file.
pub(super) struct MetadataWriter {
    compressor: BlockCompressor,
    pending: Vec<u8>,
    compressed: Vec<u8>,
    /// Finished blocks that are not in the file.
    stored: Vec<u8>,
    /// Where the table goes as it is made: the file, and the position in it.
    file: Option<(File, u64)>,
    /// Bytes of it that are there.
    written: u64,
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
            file: None,
            written: 0,
            starts: Vec::new(),
        })
    }

    /// A table that goes to `file` at `position` as it is made, so that little of it is in memory.
    pub(super) fn in_file(
        compression: Compression,
        file: &File,
        position: u64,
    ) -> Result<Self, WriteError> {
        let file =
            file.try_clone().map_err(|source| WriteError::Write { offset: position, source })?;
        Ok(Self { file: Some((file, position)), ..Self::new(compression)? })
    }

    /// Where the next byte will be.
    pub(super) fn place(&self) -> Result<Place, WriteError> {
        let block = u32::try_from(self.finished()).map_err(|_large| WriteError::TooMany {
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

    /// Bytes of finished blocks.
    fn finished(&self) -> u64 {
        self.written + self.stored.len() as u64
    }

    /// Ends a table that is in a file; its bytes.
    pub(super) fn finish_file(mut self) -> Result<u64, WriteError> {
        self.flush()?;
        self.write_out()?;
        Ok(self.written)
    }

    fn write_out(&mut self) -> Result<(), WriteError> {
        let Some((file, position)) = &self.file else { return Ok(()) };
        let offset = position + self.written;
        file.write_all_at(&self.stored, offset)
            .map_err(|source| WriteError::Write { offset, source })?;
        self.written += self.stored.len() as u64;
        self.stored.clear();
        Ok(())
    }

    /// A table in memory, and where each of its blocks starts in it.
    pub(super) fn finish(mut self) -> Result<(Vec<u8>, Vec<u64>), WriteError> {
        self.flush()?;
        Ok((self.stored, self.starts))
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.starts.push(self.finished());
        let smaller = self.compressor.compress(&self.pending, &mut self.compressed);
        let bytes = self.pending.len();
        let smaller = smaller.map_err(|source| WriteError::Compress { bytes, source })?;
        let (block, raw) =
            if smaller { (&self.compressed, 0) } else { (&self.pending, METADATA_RAW) };
        let header = u16::try_from(block.len()).unwrap_or(0) | raw;
        self.stored.extend_from_slice(&header.to_le_bytes());
        self.stored.extend_from_slice(block);
        self.pending.clear();
        if self.stored.len() >= BUFFER { self.write_out() } else { Ok(()) }
    }
}
