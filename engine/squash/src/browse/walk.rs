//! The walk through a tree: each directory, then what is in it, names in order.

use std::collections::HashSet;

use super::error::shown;
use super::{BrowseError, DIRECTORIES_MAX, ENTRIES_MAX, Found, PATH_SIZE_MAX, join};
use crate::reader::{Entries, Entry, ImageReader, Inode, InodeKind, InodeReference};

/// An entry met on a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visited {
    /// The entry as the directory has it.
    pub entry: Entry,
    /// Its path, absolute.
    pub path: Vec<u8>,
    /// Its inode.
    pub inode: Inode,
}

/// Counts what is met, and refuses what no tree has.
#[derive(Debug, Default)]
pub(super) struct Met {
    directories: HashSet<InodeReference>,
    entries: u64,
}

impl Met {
    /// Counts an entry, and a directory as entered.
    pub(super) fn add(
        &mut self,
        path: &[u8],
        reference: InodeReference,
        inode: &Inode,
    ) -> Result<(), BrowseError> {
        self.entries += 1;
        if path.len() > PATH_SIZE_MAX {
            return Err(BrowseError::PathSize { path: shown(path) });
        }
        if matches!(inode.kind, InodeKind::Directory(_)) && !self.directories.insert(reference) {
            return Err(BrowseError::tree(path, "is a directory met before"));
        }
        if self.entries > ENTRIES_MAX || self.directories.len() > DIRECTORIES_MAX {
            return Err(BrowseError::Entries { path: shown(path) });
        }
        Ok(())
    }
}

/// A listing in progress, whose names must be in order.
#[derive(Debug)]
pub(super) struct Level {
    entries: Entries,
    /// The directory.
    pub(super) path: Vec<u8>,
    last: Vec<u8>,
}

impl Level {
    /// None for what is no directory.
    pub(super) fn open(reader: &ImageReader<'_>, path: &[u8], inode: &Inode) -> Option<Self> {
        let InodeKind::Directory(place) = &inode.kind else { return None };
        let entries = reader.entries(place);
        Some(Self { entries, path: path.to_vec(), last: Vec::new() })
    }

    /// The next entry with its inode.
    pub(super) fn next(
        &mut self,
        reader: &mut ImageReader<'_>,
    ) -> Result<Option<Visited>, BrowseError> {
        let next = self.entries.next(reader).map_err(BrowseError::read(&self.path))?;
        let Some(entry) = next else { return Ok(None) };
        let path = join(&self.path, &entry.name);
        if entry.name <= self.last {
            return Err(BrowseError::tree(&path, "is not in the order of names"));
        }
        self.last.clone_from(&entry.name);
        let inode = reader.inode(entry.inode).map_err(BrowseError::read(&path))?;
        Ok(Some(Visited { entry, path, inode }))
    }
}

/// A walk through all that is below a directory. Keeps a place in the listing of each directory
/// above the current entry, and which directories it met.
#[derive(Debug)]
pub struct Walk {
    levels: Vec<Level>,
    met: Met,
}

impl Walk {
    /// Begins below `start`; what is no directory has nothing below it.
    ///
    /// # Errors
    ///
    /// None so far: `start` was found.
    pub fn new(reader: &ImageReader<'_>, start: &Found) -> Result<Self, BrowseError> {
        let mut met = Met::default();
        met.add(&start.path, start.reference, &start.inode)?;
        let levels = Level::open(reader, &start.path, &start.inode).into_iter().collect();
        Ok(Self { levels, met })
    }

    /// The next entry; what is in a directory comes right behind it.
    ///
    /// # Errors
    ///
    /// The image cannot be read, is damaged, or is larger than an honest one can be.
    pub fn next(&mut self, reader: &mut ImageReader<'_>) -> Result<Option<Visited>, BrowseError> {
        while let Some(level) = self.levels.last_mut() {
            let Some(visited) = level.next(reader)? else {
                self.levels.pop();
                continue;
            };
            self.met.add(&visited.path, visited.entry.inode, &visited.inode)?;
            self.levels.extend(Level::open(reader, &visited.path, &visited.inode));
            return Ok(Some(visited));
        }
        Ok(None)
    }
}
