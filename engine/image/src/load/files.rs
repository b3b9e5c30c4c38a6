//! The files of an archive or directory, by name, opened for reading at any place.
//!
//! Names are looked up and never made into paths of the host, but for a directory's, which are
//! opened so that nothing leads out of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use sarus_squash::tar::{Archive, Entry, EntryType};

use super::LoadError;

/// Most members of an archive that holds images.
pub(super) const MEMBERS_MAX: usize = 65_536;
/// Longest chain of links in an archive; the kernel's own limit.
const LINKS_MAX: usize = 40;
/// Buffer for headers, which lie far from each other.
const HEADER_BUFFER: usize = 8 << 10;

/// Part of a file.
#[derive(Debug, Clone)]
pub(super) struct Section {
    file: Arc<File>,
    offset: u64,
    size: u64,
}

impl Section {
    pub(super) fn new(file: Arc<File>, offset: u64, size: u64) -> Self {
        Self { file, offset, size }
    }

    /// Its bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// A reader from its first byte on.
    pub(super) fn reader(&self) -> SectionReader {
        SectionReader { section: self.clone(), position: 0 }
    }
}

/// Reads a [`Section`] by position, so that several can at once.
#[derive(Debug)]
pub(super) struct SectionReader {
    section: Section,
    position: u64,
}

impl Read for SectionReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.section.size - self.position).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let at = self.section.offset + self.position;
        let count = self.section.file.read_at(&mut buffer[..wanted], at)?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += count as u64;
        Ok(count)
    }
}

/// Where the files are.
#[derive(Debug)]
pub(super) enum Files {
    Tar(Members),
    Directory(Arc<File>),
}

/// The members of a tar archive.
#[derive(Debug)]
pub(super) struct Members {
    file: Arc<File>,
    found: HashMap<String, Member>,
    /// Whether all of the archive was looked at.
    pub(super) complete: bool,
}

#[derive(Debug)]
enum Member {
    File {
        offset: u64,
        size: u64,
    },
    /// Stored with holes.
    Sparse,
    Link(String),
    Other,
}

/// A place with the files of images, and what messages call it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) from: String,
    pub(super) files: Files,
}

impl Place {
    /// Opens a directory.
    pub(super) fn directory(from: &str, path: &Path) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Open { path: path.to_owned(), source };
        let directory = Arc::new(File::open(path).map_err(failed)?);
        Ok(Self { from: from.to_owned(), files: Files::Directory(directory) })
    }

    /// Whether there is a file of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// A file.
    pub(super) fn find(&self, name: &str) -> Result<Section, LoadError> {
        let wrong =
            |what| LoadError::Member { from: self.from.clone(), member: name.to_owned(), what };
        match &self.files {
            Files::Tar(members) => members.find(name).map_err(wrong),
            Files::Directory(directory) => self.open_below(directory, name),
        }
    }

    /// A whole file of at most `limit` bytes.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, LoadError> {
        let section = self.find(name)?;
        if section.size > limit {
            let (from, member) = (self.from.clone(), name.to_owned());
            return Err(LoadError::TooLarge { from, member, got: section.size, limit });
        }
        let mut bytes = Vec::new();
        let read = section.reader().read_to_end(&mut bytes);
        read.map_err(|source| LoadError::Read { from: self.from.clone(), source })?;
        Ok(bytes)
    }

    fn open_below(&self, directory: &File, name: &str) -> Result<Section, LoadError> {
        let from = self.from.clone();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => LoadError::Member {
                from: from.clone(),
                member: name.to_owned(),
                what: "is missing",
            },
            // Of a link that leads out of the directory.
            _ if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => LoadError::Member {
                from: from.clone(),
                member: name.to_owned(),
                what: "leads out of the directory",
            },
            _ => LoadError::Open { path: Path::new(&from).join(name), source: error },
        };
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = openat2(directory, name, flags, Mode::empty(), how);
        let file = File::from(opened.map_err(|error| failed(error.into()))?);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let (from, member) = (self.from.clone(), name.to_owned());
            return Err(LoadError::Member { from, member, what: "is no file" });
        }
        Ok(Section::new(Arc::new(file), 0, metadata.len()))
    }
}

impl Members {
    /// Finds the members of the archive in `file`. After `patience` members of which none has
    /// one of the names in `marks` it stops: this is no archive of images.
    pub(super) fn of(
        file: &Arc<File>,
        from: &str,
        (patience, marks): (usize, &[&str]),
    ) -> Result<Self, LoadError> {
        let unreadable = |source| LoadError::Read { from: from.to_owned(), source };
        let length = file.metadata().map_err(unreadable)?.len();
        let mut stream = file.try_clone().map_err(unreadable)?;
        io::Seek::rewind(&mut stream).map_err(unreadable)?;
        let mut archive = Archive::new(BufReader::with_capacity(HEADER_BUFFER, stream));
        let mut members = Self { file: Arc::clone(file), found: HashMap::new(), complete: false };
        let mut count = 0;
        loop {
            let next = archive.next_entry();
            let offset = archive.offset();
            let damaged = |source| LoadError::Tar { from: from.to_owned(), offset, source };
            let Some(entry) = next.map_err(damaged)? else { break };
            count += 1;
            if count > MEMBERS_MAX {
                let from = from.to_owned();
                return Err(LoadError::Members { from, limit: MEMBERS_MAX });
            }
            if count > patience && !marks.iter().any(|mark| members.found.contains_key(*mark)) {
                return Ok(members);
            }
            let data = archive.skip_to_next().map_err(damaged)?;
            if archive.offset() > length.saturating_add(511) {
                let missing = archive.offset() - length;
                let within = "a file's data";
                return Err(damaged(sarus_squash::tar::TarError::Truncated { within, missing }));
            }
            members.add(&entry, data);
        }
        members.complete = true;
        Ok(members)
    }

    /// The names at the top.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.found.keys().map(String::as_str)
    }

    /// The last of several members of one name counts, as it does for who unpacks.
    fn add(&mut self, entry: &Entry, data: Option<(u64, u64)>) {
        // What is not text, or leads out of the archive, no document of it can name.
        let Some(name) = std::str::from_utf8(&entry.path).ok().and_then(|name| join("", name))
        else {
            return;
        };
        let target = std::str::from_utf8(&entry.link).ok();
        let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
        let member = match (entry.entry_type, data) {
            (EntryType::File, Some((offset, size))) => Member::File { offset, size },
            (EntryType::File, None) => Member::Sparse,
            (EntryType::Symlink, _) => target
                .and_then(|target| join(directory, target))
                .map_or(Member::Other, Member::Link),
            (EntryType::HardLink, _) => {
                target.and_then(|target| join("", target)).map_or(Member::Other, Member::Link)
            }
            _ => Member::Other,
        };
        self.found.insert(name, member);
    }

    fn find(&self, name: &str) -> Result<Section, &'static str> {
        let mut name = join("", name).ok_or("leads out of the archive")?;
        for _ in 0..=LINKS_MAX {
            match self.found.get(&name) {
                Some(Member::File { offset, size }) => {
                    return Ok(Section::new(Arc::clone(&self.file), *offset, *size));
                }
                Some(Member::Link(target)) => name.clone_from(target),
                Some(Member::Sparse) => return Err("is stored with holes, which is not supported"),
                Some(Member::Other) => {
                    return Err("is no file, or a link that leads out of the archive");
                }
                None => return Err("is missing"),
            }
        }
        Err("is a link that leads to itself")
    }
}

/// A path relative to a directory of the archive, cleaned. None where it leads out, or is none.
fn join(directory: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { directory };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            other => parts.push(other),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_members_are_cleaned_and_never_lead_out() {
        for (directory, path, want) in [
            ("", "./a//b/", Some("a/b")),
            ("x", "../y.tar", Some("y.tar")),
            ("x/y", "../../z", Some("z")),
            ("x", "/abs", Some("abs")),
            ("x", "../../z", None),
            ("", "..", None),
            ("", ".", None),
        ] {
            assert_eq!(join(directory, path).as_deref(), want, "{directory} {path}");
        }
    }
}
