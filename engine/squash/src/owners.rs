//! Gives a copy of an image its real owners back.
//!
//! The id table of a stored image holds zeros (see `writer`): this writes the real ids, which the
//! image's metadata keep, into it. Knows nothing of compression: the table is stored as it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::{copy_file_range, ioctl_ficlone};

use crate::format::{METADATA_RAW, METADATA_SIZE, Superblock};
use crate::reader::{ReadError, probe};

/// Bytes copied at a time where the kernel cannot copy by itself.
const CHUNK: usize = 1 << 20;

/// Bytes of an id.
const ID_SIZE: usize = 4;

/// Why owners could not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnersError {
    /// The image is none, or is damaged.
    #[error("cannot read the image whose owners are to be restored")]
    Image(#[source] ReadError),
    /// The image has another number of owners than its metadata say.
    #[error("the image has {found} owners and groups: expected {expected} as in its metadata")]
    Count {
        /// Ids that were given.
        expected: usize,
        /// Ids that the image has.
        found: usize,
    },
    /// The table is compressed or not in one piece: some other program wrote the image.
    #[error("the image's table of owners was not written by sarus")]
    Foreign,
    /// Reading the image failed.
    #[error("cannot read the image at byte {offset}")]
    Read {
        /// Where.
        offset: u64,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: io::Error,
    },
    /// Writing the copy failed.
    #[error("cannot write the copy of the image at byte {offset}")]
    Write {
        /// Where.
        offset: u64,
        #[source]
        #[expect(missing_docs, reason = "the cause")]
        source: io::Error,
    },
}

/// Copies `image` into the empty file `output`, with `ids` in its table of owners. File offsets
/// do not matter. Shares the blocks where the file system can. After a failure `output` is of no
/// use.
///
/// # Errors
///
/// The image is not one that [`crate::Writer`] made, or has not as many ids; I/O.
pub fn restore_owners(image: &File, output: &File, ids: &[u32]) -> Result<(), OwnersError> {
    let superblock = probe(image).map_err(OwnersError::Image)?;
    if usize::from(superblock.ids) != ids.len() {
        let found = usize::from(superblock.ids);
        return Err(OwnersError::Count { expected: ids.len(), found });
    }
    let table = table_blocks(image, &superblock, ids.len())?;
    let length = image.metadata().map_err(|source| OwnersError::Read { offset: 0, source })?.len();
    copy(image, output, length)?;
    for (ids, offset) in ids.chunks(METADATA_SIZE / ID_SIZE).zip(table) {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        output
            .write_all_at(&bytes, offset)
            .map_err(|source| OwnersError::Write { offset, source })?;
    }
    Ok(())
}

/// Where the ids of each metadata block of the id table start.
fn table_blocks(
    image: &File,
    superblock: &Superblock,
    count: usize,
) -> Result<Vec<u64>, OwnersError> {
    if !superblock.has_raw_ids() {
        return Err(OwnersError::Foreign);
    }
    let mut positions = Vec::new();
    let mut left = count * ID_SIZE;
    let mut pointer = superblock.id_table;
    while left > 0 {
        let position = u64::from_le_bytes(read(image, pointer)?);
        let size = left.min(METADATA_SIZE);
        let header = usize::from(u16::from_le_bytes(read(image, position)?));
        let is_inside = position.saturating_add(2 + size as u64) <= superblock.id_table;
        if header != size | usize::from(METADATA_RAW) || !is_inside {
            return Err(OwnersError::Foreign);
        }
        positions.push(position + 2);
        left -= size;
        pointer += 8;
    }
    Ok(positions)
}

fn read<const SIZE: usize>(image: &File, offset: u64) -> Result<[u8; SIZE], OwnersError> {
    let mut bytes = [0; SIZE];
    image
        .read_exact_at(&mut bytes, offset)
        .map_err(|source| OwnersError::Read { offset, source })?;
    Ok(bytes)
}

/// Copies the first `length` bytes: as a clone, else by the kernel, else through memory.
fn copy(image: &File, output: &File, length: u64) -> Result<(), OwnersError> {
    if ioctl_ficlone(output, image).is_ok() {
        return Ok(());
    }
    let (mut from, mut to) = (0, 0);
    while from < length {
        let left = usize::try_from(length - from).unwrap_or(usize::MAX);
        match copy_file_range(image, Some(&mut from), output, Some(&mut to), left) {
            Ok(0) => break,
            Ok(_) => {}
            // Across file systems, on old kernels, on some network file systems.
            Err(error) => {
                log::debug!(
                    "copying through memory from byte {from}, since copy_file_range: {error}"
                );
                break;
            }
        }
    }
    let mut chunk = vec![0; CHUNK];
    while from < length {
        let left = usize::try_from(length - from).unwrap_or(usize::MAX).min(CHUNK);
        let bytes = &mut chunk[..left];
        image
            .read_exact_at(bytes, from)
            .map_err(|source| OwnersError::Read { offset: from, source })?;
        output
            .write_all_at(bytes, from)
            .map_err(|source| OwnersError::Write { offset: from, source })?;
        from += left as u64;
    }
    Ok(())
}
