//! Directory listings: runs of entries behind a header, and an index of them by name.

use super::error::WriteError;
use super::metadata::{MetadataWriter, Place};
use crate::format::{METADATA_SIZE, RUN_ENTRIES_MAX};

/// An entry of a directory.
pub(super) struct Row<'a> {
    pub(super) name: &'a [u8],
    pub(super) place: Place,
    pub(super) number: u32,
    pub(super) kind: u16,
}

/// A listing in the directory table.
pub(super) struct Listing {
    pub(super) place: Place,
    /// Bytes it takes.
    pub(super) size: u32,
    /// None in the many that are short.
    index: Option<Box<Index>>,
}

/// The index of a listing, as extended inodes have it: per metadata block after the first its place
/// and the first name that starts a run in it, so that look-ups skip what is before.
#[derive(Default)]
struct Index {
    bytes: Vec<u8>,
    entries: u16,
}

impl Default for Listing {
    fn default() -> Self {
        Self { place: Place { block: 0, offset: 0 }, size: 0, index: None }
    }
}

impl Listing {
    /// The index: how many entries, and their bytes.
    pub(super) fn index(&self) -> (u16, &[u8]) {
        self.index.as_ref().map_or((0, &[]), |index| (index.entries, &index.bytes))
    }

    fn add_index(&mut self, block: u32, name: &[u8]) {
        let index = self.index.get_or_insert_default();
        // Look-ups behind the last entry take longer, no more.
        let Some(entries) = index.entries.checked_add(1) else { return };
        index.entries = entries;
        for number in [self.size, block, u32::try_from(name.len()).unwrap_or(0).wrapping_sub(1)] {
            index.bytes.extend_from_slice(&number.to_le_bytes());
        }
        index.bytes.extend_from_slice(name);
    }
}

/// Appends a listing; `rows` are sorted by name.
pub(super) fn write_listing(
    out: &mut MetadataWriter,
    mut rows: &[Row<'_>],
) -> Result<Listing, WriteError> {
    let mut listing = Listing { place: out.place()?, ..Listing::default() };
    let mut indexed = listing.place.block;
    let mut bytes = Vec::new();
    while let Some(first) = rows.first() {
        let (run, rest) = rows.split_at(run_length(rows));
        let here = out.place()?;
        if here.block != indexed {
            indexed = here.block;
            listing.add_index(here.block, first.name);
        }
        bytes.clear();
        encode_run(&mut bytes, first, run);
        out.append(&bytes)?;
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        listing.size = listing.size.checked_add(size).ok_or(WriteError::TooMany {
            what: "bytes in a directory",
            limit: u64::from(u32::MAX - 3),
        })?;
        rows = rest;
    }
    Ok(listing)
}

/// How many of the rows one header can stand for.
fn run_length(rows: &[Row<'_>]) -> usize {
    let Some(first) = rows.first() else { return 0 };
    let mut bytes = 0;
    let fits = rows.iter().take(RUN_ENTRIES_MAX).take_while(|row| {
        bytes += 8 + row.name.len();
        row.place.block == first.place.block
            && delta(row, first).is_some()
            // Not demanded: the index can point to runs only.
            && bytes <= METADATA_SIZE
    });
    fits.count().max(1)
}

fn delta(row: &Row<'_>, first: &Row<'_>) -> Option<i16> {
    i16::try_from(i64::from(row.number) - i64::from(first.number)).ok()
}

fn encode_run(out: &mut Vec<u8>, first: &Row<'_>, run: &[Row<'_>]) {
    let count = u32::try_from(run.len()).unwrap_or(0).wrapping_sub(1);
    for number in [count, first.place.block, first.number] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for row in run {
        out.extend_from_slice(&row.place.offset.to_le_bytes());
        out.extend_from_slice(&delta(row, first).unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&row.kind.to_le_bytes());
        let length = u16::try_from(row.name.len()).unwrap_or(0).wrapping_sub(1);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(row.name);
    }
}
