//! Why an image could not be written.

use std::io;

/// Why an image could not be written. The file is of no use then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The block size is none that squashfs has.
    #[error("a squashfs block of {given} bytes: expected a power of two from 4096 to 1048576")]
    BlockSize {
        /// Bytes, as set.
        given: u32,
    },
    /// The compressor has no such level.
    #[error("compression `{given}` has a level out of range")]
    Level {
        /// The compression as set.
        given: String,
    },
    /// A worker thread could not be started.
    #[error("cannot start a thread for compression")]
    Thread(#[source] io::Error),
    /// A worker thread ended before its time.
    #[error("a thread for compression has ended")]
    ThreadEnded,
    /// The compressor failed.
    #[error("cannot compress {bytes} bytes")]
    Compress {
        /// Size of the block.
        bytes: usize,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: io::Error,
    },
    /// The output file cannot be written.
    #[error("cannot write the squashfs file at byte {offset}")]
    Write {
        /// Where.
        offset: u64,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: io::Error,
    },
    /// What was written cannot be read again to move it.
    #[error("cannot read the squashfs file at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: io::Error,
    },
    /// `append` or `end_file` without `start_file`, or `start_file` twice.
    #[error("file contents were submitted out of order: {0}")]
    Order(&'static str),
    /// More than a format field or the bounds on memory allow.
    #[error("the image has more than {limit} {what}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The most there may be.
        limit: u64,
    },
    /// A name that no directory can have.
    #[error("`{}` is no name for a directory entry", name.escape_ascii())]
    Name {
        /// The name.
        name: Vec<u8>,
    },
    /// A symbolic link whose target the kernel refuses.
    #[error("the target of symbolic link `{}` has {length} bytes, not 1 to 4095", path.escape_ascii())]
    Symlink {
        /// Name of the link.
        path: Vec<u8>,
        /// Bytes of its target.
        length: usize,
    },
    /// A device number that the kernel cannot represent.
    #[error("device `{}` has the number {major}:{minor}, beyond 4095:1048575", path.escape_ascii())]
    Device {
        /// Name of the device.
        path: Vec<u8>,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A directory has two names.
    #[error("directory `{}` is in the tree twice", path.escape_ascii())]
    DirectoryTwice {
        /// One of its names.
        path: Vec<u8>,
    },
    /// A node or content number that nobody gave out.
    #[error("`{}` refers to a {what} that does not exist", path.escape_ascii())]
    Dangling {
        /// Name of the entry.
        path: Vec<u8>,
        /// `node` or `content`.
        what: &'static str,
    },
}

impl WriteError {
    /// What a user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("free some space, or choose another place for the store".to_owned())
            }
            Self::Write { source, .. } if source.kind() == io::ErrorKind::QuotaExceeded => {
                Some("your quota is used up: remove files, or choose another store".to_owned())
            }
            Self::TooMany { what: "data blocks", .. } => {
                Some("choose a larger block size".to_owned())
            }
            _ => None,
        }
    }
}
