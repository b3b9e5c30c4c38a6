//! The end of an image: its tables in the order that readers demand, and the superblock.

use std::os::unix::fs::FileExt;

use super::compress::declared;
use super::contents::{Contents, Fragment};
use super::error::WriteError;
use super::inodes::Inodes;
use super::metadata::MetadataWriter;
use crate::format::{METADATA_RAW, NO_TABLE, SUPERBLOCK_SIZE, Superblock, flag};
use crate::settings::{Compression, Settings};

/// The file is padded to a multiple of this, for loop devices.
const PADDING: u64 = 4096;

/// The options of the compressor as they follow the superblock; mostly a few bytes or none.
pub(super) fn options_block(compression: Compression) -> Vec<u8> {
    let (_compressor, options) = declared(compression);
    options.map_or_else(Vec::new, |options| {
        let header = u16::try_from(options.len()).unwrap_or(0) | METADATA_RAW;
        let mut block = header.to_le_bytes().to_vec();
        block.extend_from_slice(&options);
        block
    })
}

/// Where data begin.
pub(super) fn data_start(compression: Compression) -> u64 {
    (SUPERBLOCK_SIZE + options_block(compression).len()) as u64
}

/// Appends tables to the image.
struct Tail<'a> {
    contents: &'a Contents,
    position: u64,
    compression: Compression,
}

impl Tail<'_> {
    fn append(&mut self, bytes: &[u8]) -> Result<u64, WriteError> {
        let offset = self.position;
        self.contents
            .file
            .write_all_at(bytes, offset)
            .map_err(|source| WriteError::Write { offset, source })?;
        self.position += bytes.len() as u64;
        Ok(offset)
    }

    /// A table of metadata blocks, then the positions of them; `header` comes before those.
    /// Returns where the header is.
    fn append_indexed(&mut self, table: &[u8], header: &[u8]) -> Result<u64, WriteError> {
        let mut blocks = MetadataWriter::new(self.compression)?;
        blocks.append(table)?;
        let (blocks, starts) = blocks.finish()?;
        let first = self.append(&blocks)?;
        let mut index = header.to_vec();
        for start in starts {
            index.extend_from_slice(&(first + start).to_le_bytes());
        }
        self.append(&index)
    }
}

/// Writes everything after the contents, then the superblock. Returns the size of the file.
pub(super) fn write_tables(
    contents: &Contents,
    inodes: Inodes<'_>,
    (root, count): (u64, u32),
    settings: &Settings,
) -> Result<u64, WriteError> {
    let compression = settings.compression;
    let mut tail = Tail { contents, position: contents.position, compression };
    let references = inodes.references();
    let inode_table = tail.position;
    tail.position += inodes.inodes.finish_file()?;
    let directory_table = tail.append(&inodes.directories.finish()?.0)?;
    let fragment_table = match contents.fragments.as_slice() {
        [] => NO_TABLE,
        fragments => tail.append_indexed(&encode_fragments(fragments), &[])?,
    };
    let export_table = tail.append_indexed(&encode(&references), &[])?;
    let id_table = append_ids(&mut tail, inodes.owners.ids.len())?;
    let has_xattrs = !inodes.xattrs.sets.is_empty();
    let xattr_table = match has_xattrs {
        false => NO_TABLE,
        true => {
            let pairs = tail.append(&inodes.xattrs.pairs.finish()?.0)?;
            let mut header = pairs.to_le_bytes().to_vec();
            let sets = u32::try_from(inodes.xattrs.sets.len() / 16).unwrap_or(u32::MAX);
            header.extend_from_slice(&sets.to_le_bytes());
            header.extend_from_slice(&[0; 4]);
            tail.append_indexed(&inodes.xattrs.sets, &header)?
        }
    };
    let superblock = Superblock {
        inodes: count,
        time: settings.time,
        block_size: settings.block_size,
        fragments: u32::try_from(contents.fragments.len()).unwrap_or(u32::MAX),
        compressor: declared(compression).0,
        flags: flags(compression, contents, has_xattrs),
        ids: u16::try_from(inodes.owners.ids.len()).unwrap_or(u16::MAX),
        root,
        bytes_used: tail.position,
        id_table,
        xattr_table,
        inode_table,
        directory_table,
        fragment_table,
        export_table,
    };
    complete(contents, &superblock, compression)
}

/// Pads the file, and writes its first bytes last: until then it is no image.
fn complete(
    contents: &Contents,
    superblock: &Superblock,
    compression: Compression,
) -> Result<u64, WriteError> {
    let bytes = superblock.bytes_used.next_multiple_of(PADDING);
    let failed = |offset| move |source| WriteError::Write { offset, source };
    // What was squeezed out may reach further than the padding, and must not show in it.
    contents.file.set_len(superblock.bytes_used).map_err(failed(superblock.bytes_used))?;
    contents.file.set_len(bytes).map_err(failed(bytes))?;
    let mut start = superblock.encode().to_vec();
    start.extend_from_slice(&options_block(compression));
    contents.file.write_all_at(&start, 0).map_err(failed(0))?;
    Ok(bytes)
}

/// The id table is stored as it is and holds zeros, so that all of the image is id 0's; inodes
/// keep their own indexes, so that the real ids can be put in.
fn append_ids(tail: &mut Tail<'_>, count: usize) -> Result<u64, WriteError> {
    let compression = std::mem::replace(&mut tail.compression, Compression::None);
    let table = tail.append_indexed(&vec![0; count * 4], &[]);
    tail.compression = compression;
    table
}

fn encode(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn encode_fragments(fragments: &[Fragment]) -> Vec<u8> {
    let mut table = Vec::with_capacity(fragments.len() * 16);
    for fragment in fragments {
        table.extend_from_slice(&fragment.start.to_le_bytes());
        table.extend_from_slice(&fragment.size.to_le_bytes());
        table.extend_from_slice(&[0; 4]);
    }
    table
}

fn flags(compression: Compression, contents: &Contents, has_xattrs: bool) -> u16 {
    let mut flags = flag::EXPORTABLE | flag::RAW_IDS | flag::RAW_INODES;
    if compression == Compression::None {
        flags |= flag::RAW_DATA | flag::RAW_FRAGMENTS | flag::RAW_XATTRS;
    }
    flags |= match contents.fragments.is_empty() {
        true => flag::NO_FRAGMENTS,
        false => flag::ALWAYS_FRAGMENTS,
    };
    if !has_xattrs {
        flags |= flag::NO_XATTRS;
    }
    if declared(compression).1.is_some() {
        flags |= flag::OPTIONS;
    }
    flags
}
