//! Opens what a location names, and finds out what it is.
//!
//! A file is read where it lies. A stream is used as it comes where its content allows, which a
//! root file system does; else it is kept until it is whole (`spool`).

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use sarus_oci::Platform;
use sarus_squash::tar::Archive;
use sarus_squash::{Allowance, inflate};

use super::archived::Archived;
use super::files::{Files, MEMBERS_MAX, Members, Place, Section};
use super::format::{HEAD_SIZE, Look, is_archive_member};
use super::location::{self, Location};
use super::{Format, LoadError, docker, layout, sif, spool, storage};

/// Bytes of a stream in which its first members are looked for.
const PEEK_SIZE: usize = 64 << 10;

/// Members of a tar archive that are looked at before it counts as a root file system.
const PATIENCE: usize = 4096;

/// What was found.
pub(super) enum Opened {
    /// Images with documents of their own, and what holds them.
    Images(Format, Vec<Archived>),
    /// A tar archive of a root file system.
    Root(Box<dyn Read + Send>),
    /// A squashfs image at a place in a file of that format.
    Squashfs { format: Format, file: Arc<File>, offset: u64, platform: Option<Platform> },
}

/// What is to be opened.
pub(super) struct Opening<'a> {
    pub(super) location: &'a Location,
    pub(super) format: Option<Format>,
    pub(super) platform: &'a Platform,
    /// Directory of the node for streams.
    pub(super) spool: &'a Path,
    /// What messages call it.
    pub(super) from: String,
}

impl Opening<'_> {
    /// Opens it; `input` is standard input.
    ///
    /// # Errors
    ///
    /// [`LoadError`]
    pub(super) fn open(&self, input: Option<File>) -> Result<Opened, LoadError> {
        match &self.location.place {
            location::Place::Input => match input {
                None => self.stream(Box::new(io::empty())),
                // `sarus load < FILE`: as good as a file, when nothing of it was read before.
                Some(file) if is_at_start(&file) => self.file(Arc::new(file)),
                Some(file) => self.stream(Box::new(file)),
            },
            location::Place::Storage(name) => {
                let keep = |stream: &mut dyn Read| spool::keep(stream, (&self.from, self.spool));
                let file = storage::start(name)?.read(keep)?;
                self.archive(&Arc::new(file))
            }
            location::Place::Path(path) => self.path(path),
        }
    }

    fn path(&self, path: &Path) -> Result<Opened, LoadError> {
        let failed = |source| LoadError::Open { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return self.directory(path);
        }
        if self.format == Some(Format::OciDirectory) {
            return Err(self.not("it is no directory"));
        }
        if metadata.is_file() { self.file(Arc::new(file)) } else { self.stream(Box::new(file)) }
    }

    fn directory(&self, path: &Path) -> Result<Opened, LoadError> {
        if !matches!(self.format, None | Some(Format::OciDirectory)) {
            return Err(self.not("it is a directory"));
        }
        let place = Place::directory(&self.from, path)?;
        for mark in [layout::MARK, layout::INDEX] {
            // One that may not be read is not missing.
            if let Err(error @ LoadError::Open { .. }) = place.find(mark) {
                return Err(error);
            }
        }
        if !layout::is_there(&place) {
            let what = "the directory has no `oci-layout` and `index.json`";
            return Err(match self.format {
                Some(_) => self.not(what),
                None => self.unknown(what),
            });
        }
        layout::images(&place, self.location.wanted.as_deref(), self.platform)
            .map(|images| Opened::Images(Format::OciDirectory, images))
    }

    /// A regular file.
    fn file(&self, file: Arc<File>) -> Result<Opened, LoadError> {
        let mut head = [0; HEAD_SIZE];
        let length = read_head(&file, &mut head).map_err(|source| self.unreadable(source))?;
        let size = file.metadata().map_err(|source| self.unreadable(source))?.len();
        match Look::at(&head[..length]) {
            Look::Squashfs => {
                self.check(&[Format::Squashfs], "it is a squashfs image")?;
                Ok(Opened::Squashfs { format: Format::Squashfs, file, offset: 0, platform: None })
            }
            Look::Sif => {
                self.check(&[Format::Sif], "it is a SIF file")?;
                let found = sif::root_partition(&file)
                    .map_err(|source| LoadError::Sif { from: self.from.clone(), source })?;
                let (offset, platform) = (found.offset, found.platform);
                Ok(Opened::Squashfs { format: Format::Sif, file, offset, platform })
            }
            Look::Tar => self.archive(&file),
            Look::Compressed | Look::Unknown => {
                self.stream(Box::new(Section::new(file, 0, size).reader()))
            }
        }
    }

    /// A tar archive in a file.
    fn archive(&self, file: &Arc<File>) -> Result<Opened, LoadError> {
        let tars = [Format::DockerArchive, Format::OciArchive, Format::RootTar];
        self.check(&tars, "it is a tar archive")?;
        if self.format == Some(Format::RootTar) {
            return self.root(file);
        }
        let patience = if self.format.is_some() { MEMBERS_MAX } else { PATIENCE };
        let marks = [docker::MANIFEST, layout::INDEX, layout::MARK];
        let members = Members::of(file, &self.from, (patience, &marks))?;
        let is_bare = members.complete
            && members.names().next().is_some()
            && members.names().all(is_archive_member);
        let place = Place { from: self.from.clone(), files: Files::Tar(members) };
        let wanted = self.location.wanted.as_deref();
        let format = match self.format {
            Some(format) => format,
            None if layout::is_there(&place) => Format::OciArchive,
            None if docker::is_there(&place) => Format::DockerArchive,
            None if is_bare => return Err(self.incomplete(&place)),
            None => return self.root(file),
        };
        let images = match format {
            Format::OciArchive => layout::images(&place, wanted, self.platform),
            _ => docker::images(&place, wanted, self.platform),
        };
        images.map(|images| Opened::Images(format, images))
    }

    /// Why an archive with the members of one of images cannot be used.
    fn incomplete(&self, place: &Place) -> LoadError {
        let what = if place.has(docker::MANIFEST) {
            return match docker::images(place, None, self.platform) {
                Err(error) => error,
                Ok(_) => LoadError::Empty { from: self.from.clone() },
            };
        } else if place.has("repositories") {
            "there is no `manifest.json`: Docker before version 1.10 wrote it".to_owned()
        } else {
            "there is neither `manifest.json` nor `index.json` and `oci-layout`".to_owned()
        };
        LoadError::Inconsistent { from: self.from.clone(), what }
    }

    fn root(&self, file: &Arc<File>) -> Result<Opened, LoadError> {
        if let Some(wanted) = &self.location.wanted {
            let (from, wanted) = (self.from.clone(), wanted.clone());
            return Err(LoadError::NoSuchImage { from, wanted, names: Vec::new() });
        }
        let size = file.metadata().map_err(|source| self.unreadable(source))?.len();
        Ok(Opened::Root(Box::new(Section::new(Arc::clone(file), 0, size).reader())))
    }

    /// Whatever can be read once only, and what is compressed.
    fn stream(&self, raw: Box<dyn Read + Send>) -> Result<Opened, LoadError> {
        let inflated =
            inflate(raw, Allowance::ARCHIVE).map_err(|source| self.unreadable(source))?;
        if let Some(compression) = inflated.foreign {
            return Err(LoadError::Compression { object: self.from.clone(), compression });
        }
        let mut reader = inflated.reader;
        let mut head = Vec::new();
        let peeked = reader.by_ref().take(PEEK_SIZE as u64).read_to_end(&mut head);
        peeked.map_err(|source| self.unreadable(source))?;
        let look = Look::at(&head);
        let first = first_name(&head);
        let is_root = match (look, self.format) {
            (Look::Compressed, _) => return Err(self.unknown("it is compressed twice")),
            (Look::Unknown, _) if head.is_empty() => return Err(self.unknown("it is empty")),
            (Look::Unknown, _) => {
                let begin = head.get(..8).unwrap_or(&head).escape_ascii().to_string();
                let what = format!(
                    "it is neither a tar archive nor a squashfs or SIF file, and begins with `{begin}`"
                );
                return Err(self.unknown(&what));
            }
            (Look::Tar, Some(format)) => format == Format::RootTar,
            (Look::Tar, None) => !first.as_deref().is_some_and(is_archive_member),
            (Look::Squashfs | Look::Sif, _) => false,
        };
        let mut whole = Cursor::new(head).chain(reader);
        if is_root {
            return Ok(Opened::Root(Box::new(whole)));
        }
        let file = spool::keep(&mut whole, (&self.from, self.spool))?;
        self.file(Arc::new(file))
    }

    /// Refuses content of another format than asked for.
    fn check(&self, possible: &[Format], found: &str) -> Result<(), LoadError> {
        match self.format {
            Some(format) if !possible.contains(&format) => Err(self.not(found)),
            _ => Ok(()),
        }
    }

    fn not(&self, found: &str) -> LoadError {
        let expected = self.format.unwrap_or(Format::OciDirectory);
        LoadError::Format { from: self.from.clone(), expected, found: found.to_owned() }
    }

    fn unknown(&self, found: &str) -> LoadError {
        LoadError::Unknown { from: self.from.clone(), found: found.to_owned() }
    }

    fn unreadable(&self, source: io::Error) -> LoadError {
        LoadError::Read { from: self.from.clone(), source }
    }
}

fn is_at_start(mut file: &File) -> bool {
    file.metadata().is_ok_and(|found| found.is_file())
        && io::Seek::stream_position(&mut file).is_ok_and(|position| position == 0)
}

/// The name of the first member that says something: not the root, not a hidden file.
fn first_name(head: &[u8]) -> Option<String> {
    let mut archive = Archive::new(head);
    while let Ok(Some(entry)) = archive.next_entry() {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let name = name.trim_start_matches("./").trim_start_matches('/');
        if !name.is_empty() && name != "." && !name.starts_with('.') {
            return Some(name.to_owned());
        }
    }
    None
}

fn read_head(file: &File, head: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < head.len() {
        match file.read_at(&mut head[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
