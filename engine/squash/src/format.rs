//! Squashfs 4.0 as it lies on disk: numbers, flags and the superblock, shared by writer and reader.
//!
//! Source: the kernel's `Documentation/filesystems/squashfs.rst` and `fs/squashfs/squashfs_fs.h`.
//! All numbers are little endian. Does no I/O.

/// First bytes of every image: `hsqs`.
pub(crate) const MAGIC: [u8; 4] = *b"hsqs";
/// Bytes of the superblock.
pub(crate) const SUPERBLOCK_SIZE: usize = 96;
/// Uncompressed bytes in a metadata block; the last of a table may have fewer.
pub(crate) const METADATA_SIZE: usize = 8192;
/// In a metadata block's header: stored as it is.
pub(crate) const METADATA_RAW: u16 = 0x8000;
/// In the size of a data or fragment block: stored as it is.
pub(crate) const BLOCK_RAW: u32 = 1 << 24;
/// A file without a tail in a fragment block.
pub(crate) const NO_FRAGMENT: u32 = u32::MAX;
/// An inode without extended attributes.
pub(crate) const NO_XATTR: u32 = u32::MAX;
/// A table that is not there.
pub(crate) const NO_TABLE: u64 = u64::MAX;
/// Most entries after one directory header.
pub(crate) const RUN_ENTRIES_MAX: usize = 256;
/// Longest name in a directory, in bytes.
pub(crate) const NAME_MAX: usize = 256;
/// Longest target of a symbolic link, in bytes: the kernel's `PATH_MAX` less the end.
pub(crate) const SYMLINK_MAX: usize = 4095;
/// Longest value of an extended attribute, in bytes: the kernel's `XATTR_SIZE_MAX`.
pub(crate) const XATTR_VALUE_MAX: usize = 65536;
/// Longest name of an extended attribute with its prefix, in bytes: `XATTR_NAME_MAX`.
pub(crate) const XATTR_NAME_MAX: usize = 255;
/// Prefixes of extended attributes; the place is the type on disk.
pub(crate) const XATTR_PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// In an extended attribute's type: the value is a reference to one stored elsewhere.
pub(crate) const XATTR_ELSEWHERE: u16 = 0x100;

/// Types of inodes; an extended one is its basic one plus [`EXTENDED`].
pub(crate) const DIRECTORY: u16 = 1;
pub(crate) const FILE: u16 = 2;
pub(crate) const SYMLINK: u16 = 3;
pub(crate) const BLOCK_DEVICE: u16 = 4;
pub(crate) const CHAR_DEVICE: u16 = 5;
pub(crate) const FIFO: u16 = 6;
pub(crate) const SOCKET: u16 = 7;
/// Distance from a basic type to its extended one.
pub(crate) const EXTENDED: u16 = 7;

/// Bits of the superblock's flags.
pub(crate) mod flag {
    /// Inodes are stored as they are.
    pub(crate) const RAW_INODES: u16 = 0x1;
    /// Data blocks are stored as they are.
    pub(crate) const RAW_DATA: u16 = 0x2;
    /// Fragment blocks are stored as they are.
    pub(crate) const RAW_FRAGMENTS: u16 = 0x8;
    /// There are no fragments.
    pub(crate) const NO_FRAGMENTS: u16 = 0x10;
    /// Tails of files longer than a block are in fragments, too.
    pub(crate) const ALWAYS_FRAGMENTS: u16 = 0x20;
    /// There is an export table.
    pub(crate) const EXPORTABLE: u16 = 0x80;
    /// Extended attributes are stored as they are.
    pub(crate) const RAW_XATTRS: u16 = 0x100;
    /// There are no extended attributes.
    pub(crate) const NO_XATTRS: u16 = 0x200;
    /// The compressor's options follow the superblock.
    pub(crate) const OPTIONS: u16 = 0x400;
    /// The id table is stored as it is.
    pub(crate) const RAW_IDS: u16 = 0x800;
}

/// Compressors by their number in the superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compressor {
    /// Deflate in a zlib stream.
    Gzip,
    /// LZMA, never in a released kernel.
    Lzma,
    /// LZO.
    Lzo,
    /// XZ.
    Xz,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compressor {
    /// The compressor of that number.
    pub(crate) fn from_number(number: u16) -> Option<Self> {
        [Self::Gzip, Self::Lzma, Self::Lzo, Self::Xz, Self::Lz4, Self::Zstd]
            .into_iter()
            .find(|compressor| compressor.number() == number)
    }

    /// Its number in the superblock.
    pub(crate) fn number(self) -> u16 {
        match self {
            Self::Gzip => 1,
            Self::Lzma => 2,
            Self::Lzo => 3,
            Self::Xz => 4,
            Self::Lz4 => 5,
            Self::Zstd => 6,
        }
    }

    /// The name that mksquashfs gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Lzma => "lzma",
            Self::Lzo => "lzo",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// The superblock: where everything in an image is. Positions are bytes from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Inodes in the image.
    pub inodes: u32,
    /// When the image was made, in seconds since 1970.
    pub time: u32,
    /// Bytes in a data block.
    pub block_size: u32,
    /// Fragment blocks in the image.
    pub fragments: u32,
    /// What blocks are compressed with.
    pub compressor: Compressor,
    pub(crate) flags: u16,
    /// Entries of the id table.
    pub ids: u16,
    pub(crate) root: u64,
    /// Bytes of the image without padding.
    pub bytes_used: u64,
    pub(crate) id_table: u64,
    pub(crate) xattr_table: u64,
    pub(crate) inode_table: u64,
    pub(crate) directory_table: u64,
    pub(crate) fragment_table: u64,
    pub(crate) export_table: u64,
}

impl Superblock {
    /// As it lies at the start of the image.
    pub(crate) fn encode(&self) -> [u8; SUPERBLOCK_SIZE] {
        let mut out = Vec::with_capacity(SUPERBLOCK_SIZE);
        out.extend_from_slice(&MAGIC);
        for number in [self.inodes, self.time, self.block_size, self.fragments] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let block_log = u16::try_from(self.block_size.trailing_zeros()).unwrap_or(0);
        for number in [self.compressor.number(), block_log, self.flags, self.ids, 4, 0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [
            self.root,
            self.bytes_used,
            self.id_table,
            self.xattr_table,
            self.inode_table,
            self.directory_table,
            self.fragment_table,
            self.export_table,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        let mut bytes = [0; SUPERBLOCK_SIZE];
        bytes.copy_from_slice(&out);
        bytes
    }
}

/// A device number as the kernel's `new_encode_dev` stores it; none beyond 12 and 20 bits.
pub(crate) fn encode_device(major: u32, minor: u32) -> Option<u32> {
    if major > 0xfff || minor > 0xf_ffff {
        return None;
    }
    Some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

/// Major and minor number of what [`encode_device`] made.
pub(crate) fn decode_device(number: u32) -> (u32, u32) {
    ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00))
}
