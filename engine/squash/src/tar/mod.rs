//! Reading of tar archives as a stream: V7, ustar, GNU and PAX, sparse files included.
//!
//! Follows POSIX.1-2017 `pax` ("ustar Interchange Format", "pax Header Block") and the GNU tar
//! manual ("Basic Tar Format", "Storing Sparse Files"), and is as strict as Go's `archive/tar`,
//! because that is what image builders test with. Never seeks, holds no file data, and makes no
//! allocation that the input does not pay for byte by byte. Knows nothing of layers, whiteouts or
//! paths' meaning: names come out as the archive has them.

mod archive;
mod error;
mod header;
mod pax;
mod sparse;

pub use archive::{Archive, Piece};
pub use error::TarError;
pub(crate) use error::shown;

/// Size in bytes of a header, and the unit to which data is padded.
pub const BLOCK_SIZE: usize = 512;

/// Largest PAX header, GNU long name or long link in bytes; libarchive's and Go's limit.
pub const META_SIZE_MAX: u64 = 1 << 20;

/// Largest sum in bytes of what all global PAX headers of an archive set: it is kept, and looked
/// at for each entry. Programs write a comment of some 50 bytes there.
pub const GLOBAL_SIZE_MAX: usize = 64 << 10;

/// Most segments of data in one sparse file.
pub const SPARSE_SEGMENTS_MAX: usize = 1 << 20;

/// Extended attributes: names and values, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What an entry asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryType {
    /// A regular file: flags `0`, NUL, `7` and `S`.
    File,
    /// A directory: `5`, or NUL with a trailing slash in the name.
    Directory,
    /// `2`.
    Symlink,
    /// `1`.
    HardLink,
    /// `3`.
    CharDevice,
    /// `4`.
    BlockDevice,
    /// `6`.
    Fifo,
    /// Any other flag; its data, if any, follows as for a file.
    Other(u8),
}

impl EntryType {
    /// Whether data follows the header; where not, the size is ignored.
    pub fn has_data(self) -> bool {
        matches!(self, Self::File | Self::Other(_))
    }
}

/// One entry, with what extended headers say merged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub entry_type: EntryType,
    /// As given: may be absolute, empty, not UTF-8, and hold `.` and `..`; no NUL.
    pub path: Vec<u8>,
    /// Target of a symbolic or hard link, as given.
    pub link: Vec<u8>,
    /// Bytes that the data yields, holes included; 0 where no data follows.
    pub size: u64,
    /// Mode field as given: may have type bits.
    pub mode: i64,
    /// Owner as given.
    pub uid: i64,
    /// Group as given.
    pub gid: i64,
    /// Seconds since 1970, rounded down; may be negative.
    pub mtime: i64,
    /// Major and minor number as given.
    pub device: (i64, i64),
    /// Extended attributes by full name, no name twice; never an empty value, which PAX defines as
    /// "not set".
    pub xattrs: Xattrs,
}
