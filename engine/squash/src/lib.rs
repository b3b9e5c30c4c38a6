//! From layers to one squashfs file, and back to a directory.
//!
//! Two halves that meet in [`Tree`] and [`Writer`]: the merge half reads tar layers and decides
//! what the image holds; the format half stores it and reads it again. Knows nothing of
//! registries, stores or mounts.

pub mod browse;
mod convert;
mod decompress;
mod format;
mod inflate;
pub mod merge;
mod owners;
mod reader;
mod settings;
pub mod tar;
mod timing;
mod to_tar;
mod tree;
mod unpack;
mod writer;

pub use convert::{ConvertError, Converted, Layer, Merged, Progress, convert, merge_layers};
pub use decompress::Allowance;
pub use format::{Compressor, Superblock};
pub use inflate::{Inflated, inflate};
pub use owners::{OwnersError, restore_owners};
pub use reader::{
    Attribute, BlockMarks, BlockReader, ContentReader, DirectoryPlace, Entries, Entry, Extent,
    FilePlace, FragmentCache, Image, ImageReader, Inode, InodeKind, InodeReference, Piece,
    ReadError, StoredBlock, probe, probe_at,
};
pub use settings::{BLOCK_SIZE_MAX, BLOCK_SIZE_MIN, Compression, CompressionError, Settings};
pub use timing::{Times, thread_time};
pub use to_tar::{ToTarError, write_tar};
pub use tree::{ContentId, Kind, Metadata, Names, Node, NodeId, Tree, Xattrs};
pub use unpack::{UnpackError, UnpackOptions, Unpacked, unpack, unpack_at};
pub use writer::{WriteError, Writer, Written};
