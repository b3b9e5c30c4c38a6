//! Maps of sparse files: GNU's old format in header blocks, and PAX formats 0.0, 0.1 and 1.0.
//!
//! A map lists the segments that have data; everything else is a hole.

use super::header::{Block, number, text};
use super::pax::{Records, decimal};
use super::{SPARSE_SEGMENTS_MAX, TarError};

/// Data of `length` bytes at `offset` of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) offset: i64,
    pub(super) length: i64,
}

/// Which PAX sparse format the records announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PaxFormat {
    /// 0.0 and 0.1: the map is in the records.
    InRecords,
    /// 1.0: the map is in front of the data.
    InData,
}

pub(super) fn pax_format(records: &Records) -> Option<PaxFormat> {
    let major = records.get("GNU.sparse.major").unwrap_or_default();
    let minor = records.get("GNU.sparse.minor").unwrap_or_default();
    match (major, minor) {
        (b"0", b"0" | b"1") => Some(PaxFormat::InRecords),
        (b"1", b"0") => Some(PaxFormat::InData),
        (b"", b"") if records.get("GNU.sparse.map").is_some() => Some(PaxFormat::InRecords),
        (b"", b"") if !records.segments().is_empty() => Some(PaxFormat::InRecords),
        _ => None,
    }
}

/// The map of formats 0.0 and 0.1.
pub(super) fn map_in_records(records: &Records) -> Result<Vec<Segment>, TarError> {
    let count = records.number("GNU.sparse.numblocks")?;
    let segments = if records.segments().is_empty() {
        pairs(records.get("GNU.sparse.map").unwrap_or_default())?
    } else {
        records.segments().to_vec()
    };
    if count != i64::try_from(segments.len()).ok() {
        return Err(TarError::Sparse { fault: "has not as many segments as it says" });
    }
    Ok(segments)
}

fn pairs(list: &[u8]) -> Result<Vec<Segment>, TarError> {
    let mut numbers = list.split(|&byte| byte == b',').filter(|_| !list.is_empty());
    let mut segments = Vec::new();
    while let Some(offset) = numbers.next() {
        let Some(length) = numbers.next() else {
            return Err(TarError::Sparse { fault: "ends after an offset" });
        };
        segments.push(Segment {
            offset: decimal("GNU.sparse.map", offset)?,
            length: decimal("GNU.sparse.map", length)?,
        });
    }
    Ok(segments)
}

/// The map of format 1.0, fed with blocks until it is complete.
#[derive(Debug, Default)]
pub(super) struct DataMap {
    pending: Vec<u8>,
    count: Option<usize>,
    offset: Option<i64>,
    segments: Vec<Segment>,
}

impl DataMap {
    /// Takes a block in; true once the map is complete, and the rest of the block is padding.
    pub(super) fn feed(&mut self, block: &Block) -> Result<bool, TarError> {
        for &byte in block {
            if byte == b'\n' {
                self.number()?;
                if self.count == Some(self.segments.len()) {
                    return Ok(true);
                }
            } else if self.pending.len() == 20 {
                return Err(TarError::Sparse { fault: "has a number of more than 20 digits" });
            } else {
                self.pending.push(byte);
            }
        }
        Ok(false)
    }

    fn number(&mut self) -> Result<(), TarError> {
        let value = decimal("GNU.sparse map", &std::mem::take(&mut self.pending))?;
        match (self.count, self.offset.take()) {
            (None, _) => {
                let count = usize::try_from(value).ok();
                self.count = count.filter(|&count| count <= SPARSE_SEGMENTS_MAX);
                if self.count.is_none() {
                    return Err(TarError::Sparse { fault: "has too many segments" });
                }
            }
            (_, None) => self.offset = Some(value),
            (_, Some(offset)) => self.segments.push(Segment { offset, length: value }),
        }
        Ok(())
    }

    pub(super) fn into_segments(self) -> Vec<Segment> {
        self.segments
    }
}

/// Segments of an old GNU header block: 24-byte pairs from `at`. True if another block follows.
pub(super) fn old_gnu_segments(
    block: &Block,
    (at, count): (usize, usize),
    segments: &mut Vec<Segment>,
) -> Result<bool, TarError> {
    for pair in block[at..at + 24 * count].chunks_exact(24) {
        if text(pair).is_empty() {
            break;
        }
        if segments.len() == SPARSE_SEGMENTS_MAX {
            return Err(TarError::Sparse { fault: "has too many segments" });
        }
        let offset = number("sparse offset", &pair[..12])?;
        segments.push(Segment { offset, length: number("sparse numbytes", &pair[12..])? });
    }
    Ok(block[at + 24 * count] != 0)
}

/// Checks that the segments are in order, within `size`, and take `stored` bytes of data.
pub(super) fn validate(segments: &[Segment], size: u64, stored: u64) -> Result<(), TarError> {
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in segments {
        let (Ok(offset), Ok(length)) =
            (u64::try_from(segment.offset), u64::try_from(segment.length))
        else {
            return Err(TarError::Sparse { fault: "has a negative number" });
        };
        if offset < end {
            return Err(TarError::Sparse { fault: "has segments that overlap" });
        }
        // Both are below 2^63.
        end = offset + length;
        total = total.saturating_add(length);
    }
    if end > size {
        return Err(TarError::Sparse { fault: "has a segment beyond the end of the file" });
    }
    if total != stored {
        return Err(TarError::Sparse { fault: "does not account for the data that is stored" });
    }
    Ok(())
}
