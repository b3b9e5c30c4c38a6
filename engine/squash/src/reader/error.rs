//! Why an image could not be read.

use std::io;

/// Why an image could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file is something else.
    #[error("this is not a squashfs image: it starts with `{}`, not `hsqs`", found.escape_ascii())]
    NotSquashfs {
        /// The first bytes of the file, at most four.
        found: Vec<u8>,
    },
    /// A format of before 2009, or of the future.
    #[error("the image has squashfs version {major}.{minor}: expected 4.0")]
    Version {
        /// Major version.
        major: u16,
        /// Minor version.
        minor: u16,
    },
    /// A compressor that is not built in.
    #[error("the image is compressed with {name}: expected gzip, lz4 or zstd")]
    Compressor {
        /// Its name, or its number if it has none.
        name: String,
    },
    /// The file is shorter than its superblock says.
    #[error("the image is cut off: its superblock says {expected} bytes, the file has {found}")]
    Truncated {
        /// Bytes that the superblock promises.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The file cannot be read.
    #[error("cannot read {what} at byte {position} of the image")]
    Io {
        /// What was to be read.
        what: &'static str,
        /// Where.
        position: u64,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: io::Error,
    },
    /// A block does not decompress.
    #[error("cannot decompress {what} at byte {position} of the image")]
    Decompress {
        /// What was to be read.
        what: &'static str,
        /// Where.
        position: u64,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: io::Error,
    },
    /// Something in the image contradicts the format.
    #[error("the image is damaged: {what} (at byte {position})")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// The block, or the table's start.
        position: u64,
    },
}

impl ReadError {
    /// What a user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Compressor { .. } => {
                Some("convert the image with `mksquashfs … -comp zstd`".to_owned())
            }
            Self::Truncated { .. } | Self::Damaged { .. } | Self::Decompress { .. } => {
                Some("fetch the image again".to_owned())
            }
            _ => None,
        }
    }
}
