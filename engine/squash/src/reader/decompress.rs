//! One block at a time through the image's decompressor. Each thread has one of its own.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};

use super::error::ReadError;
use crate::format::Compressor;

/// A decompressor with its working memory, used again for every block.
pub(super) enum BlockDecompressor {
    Zstd(zstd::bulk::Decompressor<'static>),
    Gzip(Decompress),
    Lz4,
}

impl BlockDecompressor {
    pub(super) fn new(compressor: Compressor) -> Result<Self, ReadError> {
        match compressor {
            Compressor::Gzip => Ok(Self::Gzip(Decompress::new(true))),
            Compressor::Lz4 => Ok(Self::Lz4),
            Compressor::Zstd => zstd::bulk::Decompressor::new().map(Self::Zstd).map_err(|source| {
                ReadError::Decompress { what: "the superblock", position: 0, source }
            }),
            Compressor::Lzma | Compressor::Lzo | Compressor::Xz => {
                Err(ReadError::Compressor { name: compressor.name().to_owned() })
            }
        }
    }

    /// Decompresses a whole block into `output`, whose content is replaced.
    ///
    /// # Errors
    ///
    /// The input is not one complete block, or holds more than `limit` bytes.
    pub(super) fn decompress(
        &mut self,
        input: &[u8],
        output: &mut Vec<u8>,
        limit: usize,
    ) -> io::Result<()> {
        output.clear();
        match self {
            Self::Zstd(zstd) => {
                output.reserve(limit);
                zstd.decompress_to_buffer(input, output)?;
            }
            Self::Gzip(zlib) => {
                zlib.reset(true);
                output.reserve(limit + 1);
                let status = zlib.decompress_vec(input, output, FlushDecompress::Finish)?;
                if status != Status::StreamEnd {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Self::Lz4 => {
                output.resize(limit, 0);
                let length =
                    lz4_flex::block::decompress_into(input, output).map_err(io::Error::other)?;
                output.truncate(length);
            }
        }
        if output.len() > limit {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }
}
