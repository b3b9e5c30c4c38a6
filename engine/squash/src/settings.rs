//! What a user or a site may choose about the squashfs file: compressor, block size, threads.
//!
//! Knows nothing of the format beyond these names.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

/// Smallest block size of squashfs, in bytes.
pub const BLOCK_SIZE_MIN: u32 = 4 << 10;

/// Largest block size of squashfs, in bytes.
pub const BLOCK_SIZE_MAX: u32 = 1 << 20;

/// How blocks are compressed. Text form: `zstd`, `zstd:3`, `gzip`, `gzip:6`, `lz4`, `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Zstandard, read by kernels since 4.14 built with `CONFIG_SQUASHFS_ZSTD`.
    Zstd {
        /// -7 (fastest) to 22 (smallest), not 0.
        level: i32,
    },
    /// Deflate in a zlib stream, read by every kernel that has squashfs.
    Gzip {
        /// 1 (fastest) to 9 (smallest).
        level: u32,
    },
    /// LZ4 blocks: least work to read, largest file.
    Lz4,
    /// Everything is stored as it is; the superblock says gzip, which every reader knows.
    None,
}

/// How the image file is written. The same settings (threads aside) and content give the same
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The compressor of data, fragments and metadata.
    pub compression: Compression,
    /// Bytes in a block: a power of two from [`BLOCK_SIZE_MIN`] to [`BLOCK_SIZE_MAX`].
    pub block_size: u32,
    /// Threads that compress, besides the one that calls [`crate::Writer`].
    pub threads: NonZeroUsize,
    /// The file system's time in the superblock, in seconds since 1970.
    pub time: u32,
}

impl Default for Compression {
    /// Zstandard level 1; why, says `docs/ARCHITECTURE.md`, "The squashfs writer".
    fn default() -> Self {
        Self::Zstd { level: 1 }
    }
}

impl Default for Settings {
    /// Zstandard level 1, blocks of 128 KiB, a thread per available CPU, time 0.
    fn default() -> Self {
        Self {
            compression: Compression::default(),
            block_size: 128 << 10,
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            time: 0,
        }
    }
}

/// A text that names no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no compression: expected zstd[:-7..22], gzip[:1..9], lz4 or none")]
pub struct CompressionError {
    given: String,
}

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(given: &str) -> Result<Self, CompressionError> {
        let refused = || CompressionError { given: given.to_owned() };
        let (name, level) = match given.split_once(':') {
            Some((name, level)) => (name, Some(level.parse::<i32>().map_err(|_number| refused())?)),
            None => (given, None),
        };
        let compression = match (name, level) {
            ("zstd", level) => Self::Zstd { level: level.unwrap_or(1) },
            ("gzip", level) => Self::Gzip { level: u32::try_from(level.unwrap_or(6)).unwrap_or(0) },
            ("lz4", None) => Self::Lz4,
            ("none", None) => Self::None,
            _ => return Err(refused()),
        };
        if compression.is_valid() { Ok(compression) } else { Err(refused()) }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zstd { level } => write!(f, "zstd:{level}"),
            Self::Gzip { level } => write!(f, "gzip:{level}"),
            Self::Lz4 => f.write_str("lz4"),
            Self::None => f.write_str("none"),
        }
    }
}

impl Compression {
    /// Whether the level is one that the compressor has.
    pub fn is_valid(self) -> bool {
        match self {
            Self::Zstd { level } => (-7..=22).contains(&level) && level != 0,
            Self::Gzip { level } => (1..=9).contains(&level),
            Self::Lz4 | Self::None => true,
        }
    }
}
