//! Files on disk: reading small ones, making directories, writing aside, synchronising.

use std::borrow::Cow;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, statat};
use rustix::io::Errno;
use serde::de::DeserializeOwned;

use crate::StoreError;

/// How often a read is tried again when another node replaced the file (`ESTALE` of NFS).
const STALE_RETRIES: usize = 3;

/// Bytes read at first.
const START: usize = 8 << 10;

/// Bytes for entries of a directory, as many as a C library takes.
const ENTRIES: usize = 32 << 10;

/// How files are opened for reading. A pipe that somebody put in the place of one is empty, and not
/// waited for.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Reads a file whole, refusing one longer than `limit` bytes. None when there is none.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    match retry_stale(|| read_once(path, limit)) {
        Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// Opening a path anew finds the file that replaced the stale one.
fn retry_stale<T>(mut read: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut tries = 0;
    loop {
        match read() {
            Err(error) if is_stale(&error) && tries < STALE_RETRIES => tries += 1,
            other => return other,
        }
    }
}

fn is_stale(error: &StoreError) -> bool {
    match error {
        StoreError::Read { source, .. } => Errno::from_io_error(source) == Some(Errno::STALE),
        _ => false,
    }
}

fn read_once(path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    let file = openat(CWD, path, FILE, Mode::empty())
        .map_err(|errno| StoreError::read(path)(errno.into()))?;
    let mut start = [0; START];
    let content = read_open(file.into(), &mut start, limit).map_err(|error| error.of(path))?;
    Ok(content.into_owned())
}

/// Reads a file that was opened, in one call where it fits `start`.
fn read_open(
    mut file: File,
    start: &mut [u8; START],
    limit: u64,
) -> Result<Cow<'_, [u8]>, ReadError> {
    // Nearly all files are shorter, and a short read of a regular file is one of its end: two
    // calls are saved for each, which counts where there are a thousand.
    let count = read_some(&mut file, start)?;
    let start = &start[..count];
    if start.len() < START && start.len() as u64 <= limit {
        return Ok(start.into());
    }
    let bytes = file.metadata()?.len();
    if bytes > limit {
        return Err(ReadError::TooLong(bytes, limit));
    }
    let mut content = vec![0; usize::try_from(bytes).unwrap_or(0)];
    let mut filled = start.len().min(content.len());
    content[..filled].copy_from_slice(&start[..filled]);
    // Files of a store are replaced as a whole and do not grow: no read that only finds the end.
    while filled < content.len() {
        match read_some(&mut file, &mut content[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    content.truncate(filled);
    Ok(content.into())
}

/// Why a file is not read, until its path is needed.
enum ReadError {
    Io(io::Error),
    /// Its length, and the limit.
    TooLong(u64, u64),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl ReadError {
    fn of(self, path: &Path) -> StoreError {
        match self {
            Self::Io(error) => StoreError::read(path)(error),
            Self::TooLong(bytes, limit) => {
                StoreError::TooLong { path: path.to_owned(), bytes, limit }
            }
        }
    }
}

#[derive(serde::Deserialize)]
struct Versioned {
    version: u32,
}

/// One read that was not interrupted.
fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Parses a JSON file of the store. One that cannot be parsed and has a newer version is called
/// that, and not damaged.
pub(crate) fn parse<T: DeserializeOwned + HasVersion>(
    path: &Path,
    json: &[u8],
) -> Result<T, StoreError> {
    parse_version(json).map_err(|error| error.of(path))
}

fn parse_version<T: DeserializeOwned + HasVersion>(json: &[u8]) -> Result<T, ParseError> {
    let parsed = serde_json::from_slice::<T>(json);
    let given = match &parsed {
        Ok(parsed) => parsed.version(),
        Err(_) => serde_json::from_slice::<Versioned>(json).map_err(ParseError::Damaged)?.version,
    };
    if given > crate::METADATA_VERSION {
        return Err(ParseError::Newer(given));
    }
    parsed.map_err(ParseError::Damaged)
}

/// Why a file's content is not taken, until its path is needed.
enum ParseError {
    Damaged(serde_json::Error),
    /// Its version.
    Newer(u32),
}

impl ParseError {
    fn of(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Damaged(source) => StoreError::Damaged { path, source },
            Self::Newer(given) => StoreError::Newer { path, given, known: crate::METADATA_VERSION },
        }
    }
}

/// What a JSON file of the store holds.
pub(crate) trait HasVersion {
    fn version(&self) -> u32;
}

impl HasVersion for crate::Metadata {
    fn version(&self) -> u32 {
        self.version
    }
}

impl HasVersion for crate::Name {
    fn version(&self) -> u32 {
        self.version
    }
}

/// JSON as the store writes it: indented, for people, with a newline at the end.
pub(crate) fn to_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut json = serde_json::to_vec_pretty(value)
        .map_err(|source| StoreError::Damaged { path: path.to_owned(), source })?;
    json.push(b'\n');
    Ok(json)
}

/// Makes a directory and those above it, with `mode` and the umask; content where it is there.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(StoreError::create(path))
}

/// [`make_directory`], such that it lasts through a power cut. Nothing is written where it is
/// there.
pub(crate) fn make_lasting_directory(path: &Path, mode: u32) -> Result<(), StoreError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
    make_directory(path, mode)?;
    for parent in missing.iter().rev().filter_map(|made| made.parent()) {
        // A directory that may be passed but not read, as `/home` may be, cannot be synchronised.
        if let Err(error) = sync_directory(parent) {
            log::debug!("a power cut may undo what was made there: {error}");
        }
    }
    Ok(())
}

/// Makes a new file for reading and writing; never follows or truncates one that is there.
pub(crate) fn create_new(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
        .map_err(StoreError::write(path))
}

/// Writes a new file, and makes it last through a power cut.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let mut file = create_new(path)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(StoreError::write(path))
}

/// Makes the entries of a directory last. File systems that cannot are taken as they are.
pub(crate) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = File::open(path).map_err(StoreError::read(path))?;
    match directory.sync_all() {
        Err(error) if is_unsupported(&error) => {
            log::debug!("`{}` cannot be synchronised: {error}", path.display());
            Ok(())
        }
        other => other.map_err(StoreError::write(path)),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    [Errno::INVAL, Errno::NOTSUP, Errno::NOSYS].iter().any(|known| Some(*known) == errno)
}

/// Removes a file; content when there is none.
pub(crate) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(StoreError::remove(path)),
    }
}

/// Removes a file or a directory with all in it; content when there is none, and when a network file
/// system keeps what somebody has open: what is removed lies in `tmp`, where later sweeps find it.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            log::debug!("`{}` stays until the next command: {error}", path.display());
            Ok(())
        }
        other => other.map_err(StoreError::remove(path)),
    }
}

/// The names in a directory, sorted; empty when there is no such directory. Names that are not
/// UTF-8 are none of the store's.
pub(crate) fn list(path: &Path) -> Result<Vec<String>, StoreError> {
    Directory::open(path)?.map_or_else(|| Ok(Vec::new()), |directory| directory.names())
}

/// [`list`]; empty also for what is no directory.
pub(crate) fn list_if_directory(directory: &Path) -> Result<Vec<String>, StoreError> {
    match list(directory) {
        Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// A directory in which many files are looked at: the way to it is gone once.
pub(crate) struct Directory<'a> {
    path: &'a Path,
    descriptor: OwnedFd,
}

impl<'a> Directory<'a> {
    /// None where there is none.
    pub(crate) fn open(path: &'a Path) -> Result<Option<Self>, StoreError> {
        match open_directory(CWD, path) {
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(StoreError::read(path)(errno.into())),
            Ok(descriptor) => Ok(Some(Self { path, descriptor })),
        }
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>, StoreError> {
        // The directories of names are many and hold one file each: no allocation for the entries.
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(&self.descriptor, &mut buffer);
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                // Removed meanwhile: it was empty.
                Err(Errno::NOENT) => break,
                other => other.map_err(|errno| StoreError::read(self.path)(errno.into()))?,
            };
            let name = entry.file_name().to_str().ok().filter(|name| !matches!(*name, "." | ".."));
            names.extend(name.map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// [`read_small`] and [`parse`] of a file in it.
    pub(crate) fn parse<T: DeserializeOwned + HasVersion>(
        &self,
        name: &str,
        limit: u64,
    ) -> Result<Option<T>, StoreError> {
        let opened = openat(&self.descriptor, name, FILE, Mode::empty());
        let mut start = [0; START];
        let content = match opened {
            Ok(file) => read_open(File::from(file), &mut start, limit),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => Err(ReadError::Io(errno.into())),
        };
        let path = || self.path.join(name);
        match content {
            Ok(content) => parse_version(&content).map_err(|error| error.of(&path())).map(Some),
            Err(error) => match error.of(&path()) {
                // The directory may be stale itself.
                error if is_stale(&error) => {
                    let content = read_small(&path(), limit)?;
                    content.map(|content| parse(&path(), &content)).transpose()
                }
                error => Err(error),
            },
        }
    }

    /// Length in bytes of a file below it; none where that cannot be told.
    pub(crate) fn length(&self, path: &str) -> Option<u64> {
        let found = statat(&self.descriptor, path, AtFlags::empty()).ok()?;
        u64::try_from(found.st_size).ok()
    }
}

fn open_directory(at: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_of_a_file_that_was_replaced_meanwhile_is_repeated_but_not_for_ever() {
        let path = Path::new("/store/names/x");
        let stale = || StoreError::read(path)(Errno::STALE.into());
        let mut left = STALE_RETRIES;
        let read = retry_stale(|| match left.checked_sub(1) {
            Some(fewer) => {
                left = fewer;
                Err(stale())
            }
            None => Ok("new"),
        });
        assert_eq!(read.unwrap(), "new");

        let mut tries = 0;
        let read = retry_stale::<()>(|| {
            tries += 1;
            Err(stale())
        });
        assert!(read.unwrap_err().hint().is_some_and(|hint| hint.contains("run the command")));
        assert_eq!(tries, STALE_RETRIES + 1);

        let mut tries = 0;
        let read = retry_stale::<()>(|| {
            tries += 1;
            Err(StoreError::read(path)(Errno::IO.into()))
        });
        assert!(read.is_err() && tries == 1, "nothing else is repeated");
    }
}
