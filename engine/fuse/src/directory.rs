//! Directories: names found, and entries listed.
//!
//! The place of an entry is its number: 0 and 1 are `.` and `..`, then those of the image in order.

use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;
use sarus_squash::{DirectoryPlace, InodeKind, InodeReference};

use crate::cache::lock;
use crate::listing::{Listing, Resting, Walk};
use crate::protocol::{Attributes, DIRENT, ENTRY_OUT, Output, ROOT, ReadIn, Request};
use crate::reply::Reply;
use crate::server::READ_MAX;
use crate::worker::{FOREVER, Worker, unreadable};

/// Entries that are not in the image.
const DOTS: u64 = 2;

impl Worker<'_> {
    /// The inode that a directory names so.
    pub(crate) fn find(
        &mut self,
        directory: u64,
        name: &[u8],
    ) -> Result<Option<InodeReference>, Errno> {
        let (_number, place) = self.directory(directory)?;
        if Listing::fits(&place) {
            return Ok(self.listing(directory, &place)?.find(name));
        }
        let mut entries = self.reader.entries(&place);
        while let Some(entry) = entries.next(&mut self.reader).map_err(unreadable)? {
            if entry.name == name {
                return Ok(Some(entry.inode));
            }
        }
        Ok(None)
    }

    /// As many entries as there is room for, with attributes or without.
    pub(crate) fn list(&mut self, request: &Request<'_>, plus: bool) -> Result<Reply, Errno> {
        let asked = ReadIn::parse(request.body).ok_or(Errno::INVAL)?;
        let (number, place) = self.directory(request.node)?;
        let room = asked.size.min(READ_MAX) as usize;
        let mut page = Page { output: Output::default(), room, plus };
        let mut at = asked.offset;
        let parent = if request.node == ROOT { number } else { place.parent };
        for (index, name, number) in [(0, &b"."[..], number), (1, b"..", parent)] {
            if at == index && page.has_room(name) {
                at += 1;
                page.put(at, number, (FileType::Directory, name), None);
            }
        }
        let mut is_full = at < DOTS;
        if !is_full {
            let mut walk = self.walk(request.node, &place, at - DOTS)?;
            is_full = self.fill(&mut page, &mut walk, &mut at)?;
            if let (true, Walk::Passing(entries)) = (is_full, walk) {
                let (node, passed) = (request.node, at - DOTS);
                *lock(&self.server.resting) = Some(Resting { node, passed, entries });
            }
        }
        if is_full && page.output.0.is_empty() {
            return Err(Errno::INVAL);
        }
        Ok(Reply::new(request.unique, |output| output.0.append(&mut page.output.0)))
    }

    /// Puts entries until there is no room, with the walk at the one that has none, or until
    /// there are no more. True if entries are left.
    fn fill(&mut self, page: &mut Page, walk: &mut Walk, at: &mut u64) -> Result<bool, Errno> {
        loop {
            let before = walk.clone();
            let Some(entry) = walk.next(&mut self.reader).map_err(unreadable)? else {
                return Ok(false);
            };
            if !page.has_room(&entry.name) {
                *walk = before;
                return Ok(true);
            }
            // An inode that cannot be read is an error for who asks for it by name.
            let known = if page.plus { self.entry(entry.inode).ok() } else { None };
            *at += 1;
            page.put(*at, entry.number, (entry.kind, &entry.name), known);
        }
    }

    /// Number and place of a directory.
    fn directory(&mut self, node: u64) -> Result<(u32, DirectoryPlace), Errno> {
        let inode = self.load(node)?;
        match inode.kind {
            InodeKind::Directory(place) => Ok((inode.number, place)),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn listing(&mut self, node: u64, place: &DirectoryPlace) -> Result<Arc<Listing>, Errno> {
        let server = self.server;
        let read = || Listing::read(&mut self.reader, place);
        server.listings.get(node, read).map_err(unreadable)
    }

    /// A walk from the entry with that number on.
    fn walk(&mut self, node: u64, place: &DirectoryPlace, from: u64) -> Result<Walk, Errno> {
        if Listing::fits(place) {
            let index = usize::try_from(from).unwrap_or(usize::MAX);
            return Ok(Walk::Kept(self.listing(node, place)?, index));
        }
        if let Some(resting) = &*lock(&self.server.resting)
            && (resting.node, resting.passed) == (node, from)
        {
            return Ok(Walk::Passing(resting.entries.clone()));
        }
        let mut entries = self.reader.entries(place);
        for _ in 0..from {
            if entries.next(&mut self.reader).map_err(unreadable)?.is_none() {
                break;
            }
        }
        Ok(Walk::Passing(entries))
    }
}

/// The answer to a request for entries, while it is filled.
struct Page {
    output: Output,
    /// Bytes it may have.
    room: usize,
    plus: bool,
}

impl Page {
    fn has_room(&self, name: &[u8]) -> bool {
        let head = if self.plus { ENTRY_OUT + DIRENT } else { DIRENT };
        self.output.0.len() + (head + name.len()).next_multiple_of(8) <= self.room
    }

    /// Adds an entry; `next` is the number of the one after it.
    fn put(
        &mut self,
        next: u64,
        number: u32,
        (kind, name): (FileType, &[u8]),
        known: Option<(u64, Attributes)>,
    ) {
        if self.plus {
            let (node, attributes) = known.unwrap_or_default();
            self.output.entry_for(FOREVER, node, &attributes);
        }
        self.output.dirent(u64::from(number), next, kind.as_raw_mode() >> 12, name);
    }
}
