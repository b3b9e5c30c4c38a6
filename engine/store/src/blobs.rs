//! The cache of blobs: verified ones under their digest, beginnings of others to be continued.
//!
//! A blob's beginning belongs to one writer, whose label is in the file's name; given up, it is
//! `HEX.partial`, which the next writer takes over by renaming. The time of last use is the
//! modification time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use sarus_oci::Digest;

use crate::disk::{create_new, list, make_directory, make_lasting_directory, remove_file};
use crate::layout::{PARTIAL, digest_name, parse_digest_name};
use crate::owner::age;
use crate::{Owner, Store, StoreError};

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// The blob cache of a store.
#[derive(Debug, Clone, Copy)]
pub struct Blobs<'a> {
    store: &'a Store,
}

/// A blob that is being downloaded. Dropped, what came so far is kept for the next attempt.
#[derive(Debug)]
pub struct PartialBlob {
    path: PathBuf,
    given_up: PathBuf,
    place: PathBuf,
    file: Arc<File>,
    bytes: u64,
}

impl<'a> Blobs<'a> {
    pub(crate) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// A blob whose digest was right when it was stored, opened for reading; counts as used now.
    ///
    /// # Errors
    ///
    /// A file that is there and cannot be read.
    pub fn open(&self, digest: &Digest) -> Result<Option<File>, StoreError> {
        let path = self.path(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(StoreError::read(&path))?,
        };
        if let Err(error) = file.set_modified(SystemTime::now()) {
            log::debug!("the time of use of `{}` is not kept: {error}", path.display());
        }
        Ok(Some(file))
    }

    /// Begins to write a blob, after what an earlier attempt left of it. The caller verifies the
    /// whole, also that beginning.
    ///
    /// # Errors
    ///
    /// The store is read-only, or the file cannot be made.
    pub fn begin(&self, digest: &Digest) -> Result<PartialBlob, StoreError> {
        self.store.check_writable()?;
        make_lasting_directory(self.store.root(), self.store.root_mode())?;
        let directory = self.store.blobs_directory();
        make_directory(&directory, 0o777)?;
        let name = digest_name(digest);
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let label = Owner::current().label();
        let path = directory.join(format!("{name}{PARTIAL},{label},{sequence}"));
        let given_up = directory.join(format!("{name}{PARTIAL}"));
        let file = match std::fs::rename(&given_up, &path) {
            Ok(()) => OpenOptions::new()
                .read(true)
                .append(true)
                .open(&path)
                .map_err(StoreError::write(&path))?,
            Err(_) => create_new(&path)?,
        };
        let bytes = file.metadata().map_err(StoreError::read(&path))?.len();
        let place = directory.join(name);
        Ok(PartialBlob { path, given_up, place, file: Arc::new(file), bytes })
    }

    /// Removes a verified blob, where what is stored turned out to be altered.
    ///
    /// # Errors
    ///
    /// A file that cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<(), StoreError> {
        remove_file(&self.path(digest))
    }

    /// Removes a blob if all together have more than `limit` bytes.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read, a file that cannot be removed.
    pub fn release(&self, digest: &Digest, limit: u64) -> Result<(), StoreError> {
        let total: u64 = self.kept()?.iter().map(|(_, bytes, _)| bytes).sum();
        if total > limit { self.remove(digest) } else { Ok(()) }
    }

    /// Removes the blobs that were not used for longest until at most `limit` bytes are left.
    /// Those being written are left alone.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read, a file that cannot be removed.
    pub fn trim(&self, limit: u64) -> Result<(), StoreError> {
        let me = Owner::current();
        self.release_left_behind(&me)?;
        let mut blobs = self.kept()?;
        blobs.sort();
        let mut total: u64 = blobs.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in blobs {
            if total <= limit {
                break;
            }
            remove_file(&path)?;
            total -= bytes;
        }
        Ok(())
    }

    /// What may be removed: when it was used, its bytes, its path.
    fn kept(&self) -> Result<Vec<(SystemTime, u64, PathBuf)>, StoreError> {
        let directory = self.store.blobs_directory();
        let mut blobs = Vec::new();
        for name in list(&directory)? {
            let path = directory.join(&name);
            if let Ok(metadata) = std::fs::symlink_metadata(&path)
                && is_trimmed(&name)
            {
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                blobs.push((used, metadata.len(), path));
            }
        }
        Ok(blobs)
    }

    /// Gives up the beginnings whose writers are gone.
    pub(crate) fn release_left_behind(&self, observer: &Owner) -> Result<(), StoreError> {
        let directory = self.store.blobs_directory();
        for name in list(&directory)? {
            let Some((blob, label)) = name.split_once(',') else { continue };
            let path = directory.join(&name);
            let Ok(modified) = std::fs::metadata(&path).and_then(|found| found.modified()) else {
                continue;
            };
            if Owner::parse(label).is_some_and(|owner| owner.is_gone(observer, age(modified))) {
                give_up(&path, &directory.join(blob));
            }
        }
        Ok(())
    }

    /// Gives up the beginnings of a process that is about to end.
    pub(crate) fn abandon(&self, is_mine: &dyn Fn(&str) -> bool) {
        let directory = self.store.blobs_directory();
        for name in list(&directory).unwrap_or_default() {
            if let Some((blob, label)) = name.split_once(',')
                && is_mine(label)
            {
                give_up(&directory.join(&name), &directory.join(blob));
            }
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.store.blobs_directory().join(digest_name(digest))
    }
}

impl PartialBlob {
    /// The bytes stored so far.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is stored yet.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The file, to be read by position (`pread`) while it grows, and after it was renamed.
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Adds to the end.
    ///
    /// # Errors
    ///
    /// The file cannot be written; what was stored before is kept.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        // The position is the end: a new file is written from its start on, one taken over is
        // open for appending.
        (&*self.file).write_all(bytes).map_err(StoreError::write(&self.path))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Begins anew: what is stored turned out to be something else.
    ///
    /// # Errors
    ///
    /// The file cannot be changed.
    pub fn clear(&mut self) -> Result<(), StoreError> {
        let cleared = self.file.set_len(0).and_then(|()| io::Seek::rewind(&mut &*self.file));
        cleared.map_err(StoreError::write(&self.path))?;
        self.bytes = 0;
        Ok(())
    }

    /// Makes it a verified blob; the caller has compared the digest.
    ///
    /// # Errors
    ///
    /// The file cannot be renamed; it is gone then.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let renamed = std::fs::rename(&self.path, &self.place);
        if renamed.is_err() {
            self.bytes = 0;
        }
        renamed.map_err(StoreError::publish(&self.place))
    }

    /// Removes what is stored: its digest is wrong.
    pub fn discard(mut self) {
        self.bytes = 0;
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        if self.bytes > 0 {
            give_up(&self.path, &self.given_up);
        } else if let Err(error) = remove_file(&self.path) {
            log::debug!("left to the next command: {error}");
        }
    }
}

/// What the bound of the cache counts: verified blobs and given-up beginnings, nothing that
/// is being written.
fn is_trimmed(name: &str) -> bool {
    let digest = name.strip_suffix(PARTIAL).unwrap_or(name);
    parse_digest_name(digest).is_some()
}

/// Lets another writer continue. After `finish` there is nothing to give up.
fn give_up(path: &Path, given_up: &Path) {
    match std::fs::rename(path, given_up) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::debug!("`{}` is left to the next command: {error}", path.display());
        }
        _ => {}
    }
}
