//! Reads squashfs images, ours and others', without mounting them.
//!
//! An image may be hostile: lengths and references are checked against the tables they belong
//! to before anything is allocated or followed, listings and lists of blocks are streamed, and
//! nothing panics. Loops of directories are for whoever walks: the identity of an inode is its
//! [`InodeReference`]. Compressors: gzip, lz4 and zstd.

mod blocks;
mod bytes;
mod content;
mod decompress;
mod directory;
mod error;
mod image;
mod inode;
mod metadata;
mod superblock;
mod xattr;

pub(crate) use blocks::ExtentWalk;
pub use blocks::{BlockMarks, BlockReader, Extent, StoredBlock};
pub use content::{ContentReader, FragmentCache, Piece};
pub use directory::{Entries, Entry};
pub use error::ReadError;
pub use image::{Image, ImageReader};
pub use inode::{DirectoryPlace, FilePlace, Inode, InodeKind, InodeReference};
pub use superblock::{probe, probe_at};
pub use xattr::Attribute;
