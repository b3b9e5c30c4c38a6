//! The superblock, checked.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::bytes::Fields;
use super::error::ReadError;
use crate::format::{Compressor, MAGIC, NO_TABLE, SUPERBLOCK_SIZE, Superblock, flag};
use crate::settings::{BLOCK_SIZE_MAX, BLOCK_SIZE_MIN};

/// Reads the superblock of `file` and checks it, which tells whether this is a squashfs image
/// that [`crate::unpack`] and the kernel can read. The file's offset does not matter.
///
/// # Errors
///
/// [`ReadError::NotSquashfs`] for any other file; an unknown version or compressor; a file that
/// is cut off.
pub fn probe(file: &File) -> Result<Superblock, ReadError> {
    probe_at(file, 0)
}

/// As [`probe`], for an image that begins at byte `offset` of the file.
///
/// # Errors
///
/// As [`probe`].
pub fn probe_at(file: &File, offset: u64) -> Result<Superblock, ReadError> {
    let failed = |source| ReadError::Io { what: "the superblock", position: 0, source };
    let mut start = [0; SUPERBLOCK_SIZE];
    let mut length = 0;
    while length < start.len() {
        match file.read_at(&mut start[length..], offset.saturating_add(length as u64)) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let superblock = Superblock::parse(&start[..length])?;
    let metadata = file.metadata().map_err(failed)?;
    // A block device has no length here; reading beyond its end fails later.
    let length = metadata.len().saturating_sub(offset);
    if metadata.is_file() && length < superblock.bytes_used {
        let (expected, found) = (superblock.bytes_used, length);
        return Err(ReadError::Truncated { expected, found });
    }
    Ok(superblock)
}

impl Superblock {
    /// Parses the first bytes of a file. Does no I/O.
    ///
    /// # Errors
    ///
    /// As [`probe`], the length of the file aside.
    pub fn parse(start: &[u8]) -> Result<Self, ReadError> {
        if start.get(..4) != Some(&MAGIC) {
            let found = start.iter().take(4).copied().collect();
            return Err(ReadError::NotSquashfs { found });
        }
        let damaged = |what| ReadError::Damaged { what, position: 0 };
        let mut fields = Fields::new(start.get(4..).unwrap_or_default(), 0);
        let (inodes, time) = (fields.u32()?, fields.u32()?);
        let (block_size, fragments) = (fields.u32()?, fields.u32()?);
        let (compressor, block_log, flags) = (fields.u16()?, fields.u16()?, fields.u16()?);
        let (ids, major, minor) = (fields.u16()?, fields.u16()?, fields.u16()?);
        if (major, minor) != (4, 0) {
            return Err(ReadError::Version { major, minor });
        }
        let compressor = Compressor::from_number(compressor)
            .ok_or_else(|| ReadError::Compressor { name: format!("compressor {compressor}") })?;
        if !block_size.is_power_of_two()
            || !(BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block_size)
            || block_size.trailing_zeros() != u32::from(block_log)
        {
            return Err(damaged("no such block size"));
        }
        let superblock = Self {
            inodes,
            time,
            block_size,
            fragments,
            compressor,
            flags,
            ids,
            root: fields.u64()?,
            bytes_used: fields.u64()?,
            id_table: fields.u64()?,
            xattr_table: fields.u64()?,
            inode_table: fields.u64()?,
            directory_table: fields.u64()?,
            fragment_table: fields.u64()?,
            export_table: fields.u64()?,
        };
        if superblock.is_in_order() { Ok(superblock) } else { Err(damaged("tables out of order")) }
    }

    /// Whether any inode can have extended attributes.
    pub fn has_xattrs(&self) -> bool {
        self.xattr_table != NO_TABLE
    }

    /// Whether the tables are where they can be.
    fn is_in_order(&self) -> bool {
        let optional = [self.xattr_table, self.fragment_table, self.export_table];
        (SUPERBLOCK_SIZE as u64) <= self.inode_table
            && self.inode_table < self.directory_table
            && self.directory_table <= self.id_table
            && self.id_table < self.bytes_used
            // Far below any overflow of a sum.
            && self.bytes_used < 1 << 62
            && optional.iter().all(|&table| {
                table == NO_TABLE || (self.directory_table <= table && table < self.bytes_used)
            })
    }

    /// Where the directory table cannot reach: the start of the next table's index.
    pub(crate) fn directory_end(&self) -> u64 {
        [self.fragment_table, self.export_table, self.id_table]
            .into_iter()
            .filter(|&table| table != NO_TABLE && table >= self.directory_table)
            .min()
            .unwrap_or(self.bytes_used)
    }

    /// Whether the id table is stored as it is, as [`crate::restore_owners`] needs it.
    pub(crate) fn has_raw_ids(&self) -> bool {
        self.flags & flag::RAW_IDS != 0
    }
}
