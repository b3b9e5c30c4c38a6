//! Directories: a listing taken apart once for all requests, and very large ones read in passing.

use std::sync::Arc;

use rustix::fs::FileType;
use sarus_squash::{DirectoryPlace, Entries, Entry, ImageReader, InodeReference, ReadError};

use crate::cache::Weight;

/// Bytes that a listing may have in the image to be kept in memory; some 300,000 names.
const KEPT_MAX: u32 = 8 << 20;

/// A directory's entries in the order of the image.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Behind each other: reference, number, type, name.
    records: Vec<u8>,
    /// Where each begins.
    starts: Vec<u32>,
    is_sorted: bool,
}

/// Bytes of a record before the name.
const RECORD: usize = 13;

impl Listing {
    /// Whether a directory is small enough to be kept.
    pub(crate) fn fits(place: &DirectoryPlace) -> bool {
        place.size <= KEPT_MAX
    }

    pub(crate) fn read(
        reader: &mut ImageReader<'_>,
        place: &DirectoryPlace,
    ) -> Result<Self, ReadError> {
        let mut listing = Self { records: Vec::new(), starts: Vec::new(), is_sorted: true };
        let mut entries = reader.entries(place);
        let mut last = Vec::new();
        while let Some(entry) = entries.next(reader)? {
            listing.is_sorted &= last < entry.name;
            listing.add(&entry);
            last = entry.name;
        }
        Ok(listing)
    }

    fn add(&mut self, entry: &Entry) {
        self.starts.push(u32::try_from(self.records.len()).unwrap_or(u32::MAX));
        self.records.extend_from_slice(&entry.inode.to_bits().to_ne_bytes());
        self.records.extend_from_slice(&entry.number.to_ne_bytes());
        self.records.push((entry.kind.as_raw_mode() >> 12).to_le_bytes()[0]);
        self.records.extend_from_slice(&entry.name);
    }

    fn record(&self, index: usize) -> Option<&[u8]> {
        let start = *self.starts.get(index)? as usize;
        let end = self.starts.get(index + 1).map_or(self.records.len(), |end| *end as usize);
        self.records.get(start..end)
    }

    fn name(&self, index: usize) -> &[u8] {
        self.record(index).and_then(|record| record.get(RECORD..)).unwrap_or_default()
    }

    pub(crate) fn get(&self, index: usize) -> Option<Entry> {
        let record = self.record(index)?;
        let (reference, rest) = record.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (kind, name) = rest.split_first()?;
        Some(Entry {
            name: name.to_vec(),
            inode: InodeReference::from_bits(u64::from_ne_bytes(*reference))?,
            number: u32::from_ne_bytes(*number),
            kind: FileType::from_raw_mode(u32::from(*kind) << 12),
        })
    }

    /// The inode of a name.
    pub(crate) fn find(&self, name: &[u8]) -> Option<InodeReference> {
        let index = if self.is_sorted {
            self.search(name)?
        } else {
            (0..self.starts.len()).find(|&index| self.name(index) == name)?
        };
        self.get(index).map(|entry| entry.inode)
    }

    fn search(&self, name: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.starts.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.name(middle).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some(middle),
            }
        }
        None
    }
}

impl Weight for Listing {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.records.capacity() + 4 * self.starts.capacity()
    }
}

/// A walk through a directory from some entry on.
#[derive(Debug, Clone)]
pub(crate) enum Walk {
    /// Through a listing that is kept.
    Kept(Arc<Listing>, usize),
    /// Through the image.
    Passing(Entries),
}

impl Walk {
    pub(crate) fn next(
        &mut self,
        reader: &mut ImageReader<'_>,
    ) -> Result<Option<Entry>, ReadError> {
        match self {
            Self::Kept(listing, index) => {
                let entry = listing.get(*index);
                *index += 1;
                Ok(entry)
            }
            Self::Passing(entries) => entries.next(reader),
        }
    }
}

/// Where the last walk through a very large directory ended, so that the next request goes on
/// there instead of at the start.
#[derive(Debug, Clone)]
pub(crate) struct Resting {
    pub(crate) node: u64,
    /// Entries that are behind it.
    pub(crate) passed: u64,
    pub(crate) entries: Entries,
}
