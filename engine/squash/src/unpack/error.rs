//! Why an image could not be unpacked.

use std::io;

use crate::reader::ReadError;

/// Why an image could not be unpacked. What was made until then stays in the directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The image itself cannot be opened or listed.
    #[error("cannot read the image to unpack")]
    Image(#[source] ReadError),
    /// The content or attributes of a file cannot be read.
    #[error("cannot read `{}` from the image", path.escape_ascii())]
    Content {
        /// Path in the image.
        path: Vec<u8>,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: ReadError,
    },
    /// The image holds a directory inside itself, or more names than it can have.
    #[error("the image is damaged: `{}` {what}", path.escape_ascii())]
    Tree {
        /// Path in the image.
        path: Vec<u8>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Refused before anything was written.
    #[error(
        "the image needs {needed} bytes and {needed_inodes} inodes when unpacked: the file system \
         has {available} bytes and {available_inodes} inodes available"
    )]
    NoRoom {
        /// Bytes that the image needs.
        needed: u64,
        /// Inodes that the image needs.
        needed_inodes: u64,
        /// Bytes available to the caller.
        available: u64,
        /// Inodes available to the caller.
        available_inodes: u64,
    },
    /// The file system became full, or a quota is used up.
    #[error(
        "no room left for `{}`: the image needs {needed} bytes in all, {available} are available",
        path.escape_ascii()
    )]
    Full {
        /// Path in the image.
        path: Vec<u8>,
        /// Bytes that the whole image needs.
        needed: u64,
        /// Bytes available now.
        available: u64,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: io::Error,
    },
    /// An entry cannot be made.
    #[error("cannot {operation} `{}`", path.escape_ascii())]
    Make {
        /// What was to be done.
        operation: &'static str,
        /// Path in the image.
        path: Vec<u8>,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread for decompression")]
    Thread(#[source] io::Error),
}

impl UnpackError {
    /// What a user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoRoom { .. } | Self::Full { .. } => {
                Some("free some space, or choose another directory to unpack to".to_owned())
            }
            Self::Image(source) | Self::Content { source, .. } => source.hint(),
            Self::Tree { .. } => Some("fetch the image again".to_owned()),
            Self::Make { .. } | Self::Thread(_) => None,
        }
    }
}
