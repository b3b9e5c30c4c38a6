//! Files on disk: reading small ones, making directories, writing aside, synchronising.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::io::Errno;
use serde::de::DeserializeOwned;

use crate::StoreError;

/// How often a read is tried again when another node replaced the file (`ESTALE` of NFS).
const STALE_RETRIES: usize = 3;

/// Reads a file whole, refusing one longer than `limit` bytes. None when there is none.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut tries = 0;
    loop {
        match read_once(path, limit) {
            Err(StoreError::Read { source, .. })
                if Errno::from_io_error(&source) == Some(Errno::STALE) && tries < STALE_RETRIES =>
            {
                tries += 1;
            }
            Err(StoreError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            other => return other.map(Some),
        }
    }
}

fn read_once(path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    let mut file = File::open(path).map_err(StoreError::read(path))?;
    let bytes = file.metadata().map_err(StoreError::read(path))?.len();
    if bytes > limit {
        return Err(StoreError::TooLong { path: path.to_owned(), bytes, limit });
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    Read::by_ref(&mut file)
        .take(limit)
        .read_to_end(&mut content)
        .map_err(StoreError::read(path))?;
    Ok(content)
}

#[derive(serde::Deserialize)]
struct Versioned {
    version: u32,
}

/// Parses a JSON file of the store: the version first, so that a newer file is called that.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, json: &[u8]) -> Result<T, StoreError> {
    let damaged = |source| StoreError::Damaged { path: path.to_owned(), source };
    let Versioned { version } = serde_json::from_slice(json).map_err(damaged)?;
    let known = crate::METADATA_VERSION;
    if version > known {
        return Err(StoreError::Newer { path: path.to_owned(), given: version, known });
    }
    serde_json::from_slice(json).map_err(damaged)
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

/// Removes a file or a directory with all in it; content when there is none.
pub(crate) fn remove_tree(path: &Path) -> Result<(), StoreError> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(StoreError::remove(path)),
    }
}

/// The names in a directory, sorted; empty when there is no such directory. Names that are not
/// UTF-8 are none of the store's.
pub(crate) fn list(path: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(StoreError::read(path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::read(path))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
