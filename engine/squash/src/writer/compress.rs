//! One block at a time through the chosen compressor. Each thread has one of its own.

use std::io;

use flate2::{Compress, FlushCompress, Status};

use crate::format::Compressor;
use crate::settings::Compression;

/// A compressor with its working memory, used again for every block.
pub(super) enum BlockCompressor {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(Compress),
    Lz4,
    Stored,
}

impl BlockCompressor {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Zstd { level } => Self::Zstd(zstd::bulk::Compressor::new(level)?),
            Compression::Gzip { level } => {
                Self::Gzip(Compress::new(flate2::Compression::new(level), true))
            }
            Compression::Lz4 => Self::Lz4,
            Compression::None => Self::Stored,
        })
    }

    /// Compresses `input` into `output`, whose content is replaced. False where that does not
    /// make it smaller; `output` is of no use then.
    ///
    /// Zstandard's choices depend on the room it has: the capacity of `output` is to be the same
    /// for every block, or the bytes of an image would depend on which buffer was at hand.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
        output.clear();
        match self {
            Self::Stored => Ok(false),
            Self::Zstd(zstd) => {
                output.reserve(input.len());
                // The only error with enough memory is that the result does not fit.
                Ok(zstd.compress_to_buffer(input, output).is_ok() && output.len() < input.len())
            }
            Self::Gzip(zlib) => {
                zlib.reset();
                output.reserve(input.len());
                let status = zlib
                    .compress_vec(input, output, FlushCompress::Finish)
                    .map_err(io::Error::other)?;
                Ok(status == Status::StreamEnd && output.len() < input.len())
            }
            Self::Lz4 => {
                output.resize(lz4_flex::block::get_maximum_output_size(input.len()), 0);
                let length =
                    lz4_flex::block::compress_into(input, output).map_err(io::Error::other)?;
                output.truncate(length);
                Ok(length < input.len())
            }
        }
    }
}

/// The compressor's number in the superblock, and its options where readers want to know them.
pub(super) fn declared(compression: Compression) -> (Compressor, Option<Vec<u8>>) {
    match compression {
        // 15 is what readers take for granted, and they refuse negative levels.
        Compression::Zstd { level } if level > 0 && level != 15 => {
            (Compressor::Zstd, Some(level.to_le_bytes().to_vec()))
        }
        Compression::Zstd { .. } => (Compressor::Zstd, None),
        Compression::Gzip { level } if level != 9 => {
            let window: u16 = 15;
            let strategies: u16 = 0;
            let mut options = level.to_le_bytes().to_vec();
            options.extend_from_slice(&window.to_le_bytes());
            options.extend_from_slice(&strategies.to_le_bytes());
            (Compressor::Gzip, Some(options))
        }
        Compression::Gzip { .. } | Compression::None => (Compressor::Gzip, None),
        // Version 1, "legacy", no flags: the kernel wants to see it.
        Compression::Lz4 => (Compressor::Lz4, Some(vec![1, 0, 0, 0, 0, 0, 0, 0])),
    }
}
