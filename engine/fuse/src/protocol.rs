//! The FUSE protocol as the kernel speaks it: numbers and layouts, as one table.
//!
//! Source: the kernel's `include/uapi/linux/fuse.h`, version 7. All numbers are in the byte order
//! of the machine. Only what a read-only server needs is here. Does no I/O.

use std::ffi::CStr;

/// The version that is spoken.
pub const MAJOR: u32 = 7;
/// The oldest minor version that is served: Linux 3.15, whose answers have today's sizes.
pub const MINOR_MIN: u32 = 23;
/// The newest minor version that is known here.
pub const MINOR: u32 = 41;

/// Number of the root directory.
pub const ROOT: u64 = 1;

/// Requests by their number, `enum fuse_opcode`.
pub mod opcode {
    #![expect(missing_docs, reason = "the names are the kernel's")]

    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const NOTIFY_REPLY: u32 = 41;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const TMPFILE: u32 = 51;
}

/// Bits of `fuse_init_in.flags` and `fuse_init_out.flags`.
pub mod init {
    #![expect(missing_docs, reason = "the names are the kernel's")]

    pub const ASYNC_READ: u32 = 1 << 0;
    pub const DO_READDIRPLUS: u32 = 1 << 13;
    pub const READDIRPLUS_AUTO: u32 = 1 << 14;
    pub const NO_OPEN_SUPPORT: u32 = 1 << 17;
    pub const PARALLEL_DIROPS: u32 = 1 << 18;
    pub const MAX_PAGES: u32 = 1 << 22;
    pub const CACHE_SYMLINKS: u32 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u32 = 1 << 24;
}

/// Bits of `fuse_open_out.open_flags`: the kernel keeps pages and listings of a file that is
/// opened again, and does not tell of each close.
pub mod open {
    #![expect(missing_docs, reason = "the names are the kernel's")]

    pub const KEEP_CACHE: u32 = 1 << 1;
    pub const CACHE_DIR: u32 = 1 << 3;
    pub const NOFLUSH: u32 = 1 << 5;
}

/// Bytes of `fuse_in_header`.
pub const IN_HEADER: usize = 40;
/// Bytes of `fuse_out_header`.
pub const OUT_HEADER: usize = 16;
/// Bytes of a `fuse_dirent` without its name; names are filled up to a multiple of eight.
pub const DIRENT: usize = 24;
/// Bytes of a `fuse_entry_out`, which stands before the `fuse_dirent` in a `fuse_direntplus`.
pub const ENTRY_OUT: usize = 128;

/// The fields of a request, taken one after the other. None beyond its end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    fn array<const SIZE: usize>(&mut self) -> Option<[u8; SIZE]> {
        let (now, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*now)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// A name with a zero byte behind it.
    pub(crate) fn name(&mut self) -> Option<&'a [u8]> {
        let name = CStr::from_bytes_until_nul(self.0).ok()?.to_bytes();
        self.0 = self.0.get(name.len() + 1..)?;
        Some(name)
    }
}

/// `fuse_in_header` and what follows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) body: Input<'a>,
}

impl<'a> Request<'a> {
    /// None if there is not even a whole header.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut header = Input(bytes.get(..IN_HEADER)?);
        let (length, opcode) = (header.u32()? as usize, header.u32()?);
        let (unique, node) = (header.u64()?, header.u64()?);
        let body = Input(bytes.get(IN_HEADER..length.min(bytes.len())).unwrap_or_default());
        Some(Self { opcode, unique, node, body })
    }
}

/// `fuse_init_in`, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InitIn {
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) max_readahead: u32,
    pub(crate) flags: u32,
}

impl InitIn {
    pub(crate) fn parse(mut body: Input<'_>) -> Option<Self> {
        let (major, minor) = (body.u32()?, body.u32()?);
        Some(Self { major, minor, max_readahead: body.u32()?, flags: body.u32()? })
    }
}

/// `fuse_read_in`, as far as it matters; for files and directories.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadIn {
    pub(crate) offset: u64,
    pub(crate) size: u32,
}

impl ReadIn {
    pub(crate) fn parse(mut body: Input<'_>) -> Option<Self> {
        let _handle = body.u64()?;
        Some(Self { offset: body.u64()?, size: body.u32()? })
    }
}

/// `fuse_getxattr_in`; the name of an attribute may follow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GetxattrIn<'a> {
    /// Zero asks for the size only.
    pub(crate) size: u32,
    pub(crate) name: Option<&'a [u8]>,
}

impl<'a> GetxattrIn<'a> {
    pub(crate) fn parse(mut body: Input<'a>) -> Option<Self> {
        let (size, _padding) = (body.u32()?, body.u32()?);
        Some(Self { size, name: body.name() })
    }
}

/// `fuse_attr`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Attributes {
    pub(crate) number: u64,
    pub(crate) size: u64,
    /// In units of 512 bytes.
    pub(crate) blocks: u64,
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) device: u32,
    pub(crate) block_size: u32,
}

/// The fields of an answer, put one after the other.
#[derive(Debug, Default)]
pub(crate) struct Output(pub(crate) Vec<u8>);

impl Output {
    pub(crate) fn u32s(&mut self, numbers: &[u32]) {
        for number in numbers {
            self.0.extend_from_slice(&number.to_ne_bytes());
        }
    }

    pub(crate) fn u64s(&mut self, numbers: &[u64]) {
        for number in numbers {
            self.0.extend_from_slice(&number.to_ne_bytes());
        }
    }

    /// `fuse_attr`: 88 bytes.
    pub(crate) fn attributes(&mut self, attributes: &Attributes) {
        let Attributes { number, size, blocks, time, .. } = *attributes;
        let Attributes { mode, links, uid, gid, device, block_size, .. } = *attributes;
        self.u64s(&[number, size, blocks, time, time, time]);
        self.u32s(&[0, 0, 0, mode, links, uid, gid, device, block_size, 0]);
    }

    /// `fuse_attr_out`.
    pub(crate) fn attributes_for(&mut self, seconds: u64, attributes: &Attributes) {
        self.u64s(&[seconds, 0]);
        self.attributes(attributes);
    }

    /// `fuse_entry_out`. Node 0 says that there is no such entry.
    pub(crate) fn entry_for(&mut self, seconds: u64, node: u64, attributes: &Attributes) {
        self.u64s(&[node, 0, seconds, seconds, 0]);
        self.attributes(attributes);
    }

    /// `fuse_dirent`; `next` is the place of the entry after it.
    pub(crate) fn dirent(&mut self, number: u64, next: u64, kind: u32, name: &[u8]) {
        self.u64s(&[number, next]);
        self.u32s(&[u32::try_from(name.len()).unwrap_or(0), kind]);
        self.0.extend_from_slice(name);
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    /// `fuse_open_out`, without a handle.
    pub(crate) fn opened(&mut self, flags: u32) {
        self.u64s(&[0]);
        self.u32s(&[flags, 0]);
    }

    /// `fuse_getxattr_out`.
    pub(crate) fn xattr_size(&mut self, size: usize) {
        self.u32s(&[u32::try_from(size).unwrap_or(u32::MAX), 0]);
    }

    /// `fuse_statfs_out`, of a file system without room.
    pub(crate) fn statfs(&mut self, blocks: u64, files: u64, block_size: u32, name_max: u32) {
        self.u64s(&[blocks, 0, 0, files, 0]);
        self.u32s(&[block_size, name_max, block_size, 0, 0, 0, 0, 0, 0, 0]);
    }

    /// `fuse_init_out`.
    pub(crate) fn init(&mut self, answer: &InitOut) {
        let InitOut { max_readahead, flags, requests, congestion, max_pages } = *answer;
        let pair = |low: u16, high: u16| {
            let ([a, b], [c, d]) = (low.to_ne_bytes(), high.to_ne_bytes());
            u32::from_ne_bytes([a, b, c, d])
        };
        self.u32s(&[MAJOR, MINOR, max_readahead, flags, pair(requests, congestion)]);
        self.u32s(&[WRITE_MAX, TIME_UNIT, pair(max_pages, 0), 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}

/// Most bytes that the kernel writes at once: nothing is written, this is its own least.
const WRITE_MAX: u32 = 4096;
/// Nanoseconds in the unit of times: squashfs keeps seconds.
const TIME_UNIT: u32 = 1_000_000_000;

/// `fuse_init_out`, as far as it differs from connection to connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InitOut {
    pub(crate) max_readahead: u32,
    pub(crate) flags: u32,
    /// Requests in the background that the kernel may have pending.
    pub(crate) requests: u16,
    /// How many of them count as congestion.
    pub(crate) congestion: u16,
    pub(crate) max_pages: u16,
}
