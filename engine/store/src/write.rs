//! Writing the store: new images, names, removal, and what killed writers left.
//!
//! Order keeps it correct: an image is in place before a name points at it; a name is gone
//! before its image is marked; a marked image is deleted only after a look at all names.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sarus_oci::{Digest, Platform, Reference};

use crate::disk::{
    create_new, list, make_directory, remove_file, remove_tree, sync_directory, to_json, write_new,
};
use crate::layout::{METADATA, REMOVED, SQUASHFS, parse_digest_name};
use crate::owner::age;
use crate::{Image, METADATA_VERSION, Metadata, Name, Owner, Store, StoreError};

/// How often giving a name is tried again when a removal deletes the name's directory meanwhile.
const NAME_RETRIES: usize = 16;

/// How often putting an image in place is tried again when others replace or remove it meanwhile.
const PUBLISH_RETRIES: usize = 16;

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

/// An image that is being written. Dropped without [`Pending::commit`], it is gone.
#[derive(Debug)]
#[must_use = "dropping a pending image removes it"]
pub struct Pending<'a> {
    store: &'a Store,
    digest: Digest,
    directory: PathBuf,
    file: File,
}

/// What became of an image when a name was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Other names keep the image, or names that cannot be read and may be its.
    NameOnly,
    /// The file is kept for running jobs, and deleted by a command after this time.
    Deferred(Duration),
    /// The file is deleted.
    Deleted,
}

impl Store {
    /// Begins to write the image of that manifest digest.
    ///
    /// # Errors
    ///
    /// The store is read-only, or a directory or file cannot be made.
    pub fn begin(&self, digest: &Digest) -> Result<Pending<'_>, StoreError> {
        let directory = self.temporary("image")?;
        make_directory(&directory, 0o777)?;
        let path = directory.join(SQUASHFS);
        let file = create_new(&path).inspect_err(|_| discard(&directory))?;
        Ok(Pending { store: self, digest: digest.clone(), directory, file })
    }

    /// Makes `reference` mean the image `digest` on `platform`, from now on. An image that lost
    /// its last name by this is marked for removal.
    ///
    /// # Errors
    ///
    /// [`StoreError::Vanished`] when the image is not in the store (any more); a file that
    /// cannot be written.
    pub fn tag(
        &self,
        reference: &Reference,
        platform: &Platform,
        digest: &Digest,
    ) -> Result<(), StoreError> {
        self.tag_admitted((reference, platform), digest, None)
    }

    /// As [`Store::tag`]; `admission` is kept with the name ([`Name::admission`]).
    ///
    /// # Errors
    ///
    /// As [`Store::tag`].
    pub fn tag_admitted(
        &self,
        (reference, platform): (&Reference, &Platform),
        digest: &Digest,
        admission: Option<serde_json::Value>,
    ) -> Result<(), StoreError> {
        self.check_writable()?;
        let vanished = || StoreError::Vanished { digest: digest.to_string() };
        let directory = self.image_directory(digest);
        if !directory.join(METADATA).exists() {
            return Err(vanished());
        }
        let before = self.name(reference, platform).unwrap_or_default();
        let name = Name {
            version: METADATA_VERSION,
            reference: reference.clone(),
            platform: platform.clone(),
            digest: digest.clone(),
            pulled: now(),
            admission,
        };
        self.write_name(&self.name_path(reference, platform), &name)?;
        // The collector looks at the names after it found a mark that is old enough.
        remove_file(&directory.join(REMOVED))?;
        if !directory.join(METADATA).exists() {
            return Err(vanished());
        }
        if let Some(before) = before
            && before.digest != *digest
            && !self.has_name(&before.digest)?
        {
            self.mark(&before.digest)?;
        }
        Ok(())
    }

    /// Removes a name, and with the last one of an image the image: after `grace`, counted from
    /// now, or at once when that is zero. None when there is no such name.
    ///
    /// # Errors
    ///
    /// The store is read-only; a file that cannot be read, written or removed.
    pub fn remove(
        &self,
        reference: &Reference,
        platform: &Platform,
        grace: Duration,
    ) -> Result<Option<Removal>, StoreError> {
        self.check_writable()?;
        let path = self.name_path(reference, platform);
        // A damaged name can be removed too; its image is left to the collector.
        let digest = match self.read_name(&path) {
            Ok(None) => return Ok(None),
            Ok(Some(name)) => Some(name.digest),
            Err(error) if error.is_damage() => None,
            Err(error) => return Err(error),
        };
        self.remove_name_file(&path)?;
        let Some(digest) = digest else { return Ok(Some(Removal::NameOnly)) };
        if self.has_name(&digest)? {
            return Ok(Some(Removal::NameOnly));
        }
        self.remove_image(&digest, grace).map(Some)
    }

    /// Removes an image with all its names: its file after `grace`, or at once when that is zero.
    ///
    /// # Errors
    ///
    /// The store is read-only; a file that cannot be read, written or removed.
    pub fn remove_image(&self, digest: &Digest, grace: Duration) -> Result<Removal, StoreError> {
        self.check_writable()?;
        for path in self.name_paths()? {
            if let Ok(Some(name)) = self.read_name(&path)
                && name.digest == *digest
            {
                self.remove_name_file(&path)?;
            }
        }
        if grace.is_zero() {
            return self.delete(digest);
        }
        self.mark(digest)?;
        Ok(Removal::Deferred(grace))
    }

    /// Removes what killed writers left, and images without a name whose `grace` has passed.
    /// To be called by commands that write. A store that does not exist yet stays so.
    ///
    /// # Errors
    ///
    /// The first file that cannot be read or removed; the rest is left to the next call.
    pub fn sweep(&self, grace: Duration) -> Result<(), StoreError> {
        self.check_writable()?;
        let me = Owner::current();
        let directory = self.temporaries_directory();
        for name in list(&directory)? {
            let path = directory.join(&name);
            if is_left_behind(&path, &name, &me) {
                log::debug!("removing what a killed process left: `{}`", path.display());
                remove_tree(&path)?;
            }
        }
        self.blobs().release_left_behind(&me)?;
        self.collect(grace)
    }

    fn collect(&self, grace: Duration) -> Result<(), StoreError> {
        let mut unnamed = Vec::new();
        for name in list(&self.images_directory())? {
            let Some(digest) = parse_digest_name(&name) else { continue };
            match std::fs::metadata(self.image_directory(&digest).join(REMOVED)) {
                Ok(mark) if age(mark.modified().unwrap_or(UNIX_EPOCH)) >= grace => {
                    unnamed.push(digest);
                }
                Ok(_) => {}
                Err(_) if !self.has_name(&digest)? => self.mark(&digest)?,
                Err(_) => {}
            }
        }
        for digest in unnamed {
            if self.has_name(&digest)? {
                remove_file(&self.image_directory(&digest).join(REMOVED))?;
            } else {
                self.delete(&digest)?;
            }
        }
        Ok(())
    }

    /// Whether a name points at the image. One that cannot be read (a newer version's, another
    /// user's) counts as one that may; a damaged one points nowhere.
    fn has_name(&self, digest: &Digest) -> Result<bool, StoreError> {
        for path in self.name_paths()? {
            match self.read_name(&path) {
                Ok(Some(name)) if name.digest == *digest => return Ok(true),
                Ok(_) => {}
                Err(error) if error.is_damage() => {}
                Err(error) => {
                    log::debug!("counted as a name of `{digest}`: {error}");
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Marks an image as one without a name; its grace period begins. Keeps an older mark.
    fn mark(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.image_directory(digest).join(REMOVED);
        match write_new(&path, b"") {
            Err(StoreError::Write { source, .. })
                if matches!(
                    source.kind(),
                    std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotFound
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Takes the image's directory out of the store in one step, then deletes it. Gives it back
    /// when a name was given to it in between.
    fn delete(&self, digest: &Digest) -> Result<Removal, StoreError> {
        let directory = self.image_directory(digest);
        let aside = self.temporary("removed")?;
        match std::fs::rename(&directory, &aside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Removal::Deleted);
            }
            other => other.map_err(StoreError::remove(&directory))?,
        }
        if self.has_name(digest)? && std::fs::rename(&aside, &directory).is_ok() {
            return Ok(Removal::NameOnly);
        }
        remove_tree(&aside)?;
        Ok(Removal::Deleted)
    }

    fn write_name(&self, path: &Path, name: &Name) -> Result<(), StoreError> {
        let temporary = self.temporary("name")?;
        let json = to_json(path, name)?;
        let written = write_new(&temporary, &json).and_then(|()| publish_name(&temporary, path));
        if written.is_err() {
            discard(&temporary);
        }
        written
    }

    fn remove_name_file(&self, path: &Path) -> Result<(), StoreError> {
        remove_file(path)?;
        if let Some(directory) = path.parent()
            && let Err(error) = std::fs::remove_dir(directory)
        {
            // Names of other platforms, or another command was faster.
            log::debug!("`{}` is kept: {error}", directory.display());
        }
        Ok(())
    }

    /// A new path in `tmp`, which is made when needed.
    fn temporary(&self, kind: &str) -> Result<PathBuf, StoreError> {
        self.check_writable()?;
        make_directory(self.root(), self.root_mode())?;
        let directory = self.temporaries_directory();
        make_directory(&directory, 0o777)?;
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        Ok(directory.join(format!("{kind},{},{sequence}", Owner::current().label())))
    }

    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        if self.is_read_only() {
            return Err(StoreError::ReadOnly { root: self.root().to_owned() });
        }
        Ok(())
    }
}

impl Pending<'_> {
    /// The squashfs file, empty at first, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Makes the image part of the store. Where it is there already, that one is kept: it has
    /// the same content; a damaged one is replaced.
    ///
    /// # Errors
    ///
    /// A file that cannot be written or renamed; nothing is left of the image then.
    pub fn commit(self, metadata: &Metadata) -> Result<Image, StoreError> {
        let squashfs = self.directory.join(SQUASHFS);
        let got = self.file.metadata().map_err(StoreError::read(&squashfs))?.len();
        let expected = metadata.conversion.bytes;
        if got != expected {
            return Err(StoreError::Length { path: squashfs, got, expected });
        }
        self.file.sync_all().map_err(StoreError::write(&squashfs))?;
        let path = self.directory.join(METADATA);
        write_new(&path, &to_json(&path, metadata)?)?;
        sync_directory(&self.directory)?;
        if let Some(image) = self.publish()? {
            return Ok(image);
        }
        let squashfs = self.store.image_directory(&self.digest).join(SQUASHFS);
        Ok(Image { digest: self.digest.clone(), squashfs, metadata: metadata.clone() })
    }

    /// The image that was there before and is kept, if there was one.
    fn publish(&self) -> Result<Option<Image>, StoreError> {
        let images = self.store.images_directory();
        make_directory(&images, 0o777)?;
        let place = self.store.image_directory(&self.digest);
        let mut tries = 0;
        while let Err(error) = std::fs::rename(&self.directory, &place) {
            if !is_occupied(&error) || tries == PUBLISH_RETRIES {
                return Err(StoreError::publish(&place)(error));
            }
            tries += 1;
            match self.store.image(&self.digest) {
                Ok(Some(image)) => return remove_tree(&self.directory).map(|()| Some(image)),
                Err(other) if !other.is_damage() => return Err(other),
                // Damaged, or removed meanwhile.
                Ok(None) | Err(_) => {}
            }
            if exchange(&self.directory, &place) {
                remove_tree(&self.directory)?;
                break;
            }
            remove_tree_aside(self.store, &place)?;
        }
        sync_directory(&images)?;
        Ok(None)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        discard(&self.directory);
    }
}

/// Swaps two directories in one step, such that no reader finds neither. False where the file
/// system cannot, as network file systems, or one of them is gone.
fn exchange(one: &Path, other: &Path) -> bool {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok()
}

/// Removes a directory such that no reader sees half of it.
fn remove_tree_aside(store: &Store, path: &Path) -> Result<(), StoreError> {
    let aside = store.temporary("damaged")?;
    match std::fs::rename(path, &aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(StoreError::remove(path)).and_then(|()| remove_tree(&aside)),
    }
}

/// The directory may be removed by `rmi` between its making and the renaming into it.
fn publish_name(temporary: &Path, path: &Path) -> Result<(), StoreError> {
    let Some(directory) = path.parent() else { return Ok(()) };
    let mut tries = 0;
    loop {
        make_directory(directory, 0o777)?;
        match std::fs::rename(temporary, path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries < NAME_RETRIES => {
                tries += 1;
            }
            other => {
                other.map_err(StoreError::publish(path))?;
                return sync_directory(directory);
            }
        }
    }
}

fn is_occupied(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTEMPTY | Errno::EXIST))
}

/// Removal of a temporary on the way out; a failure leaves it to [`Store::sweep`].
fn discard(path: &Path) {
    if let Err(error) = remove_tree(path) {
        log::debug!("left to the next command: {error}");
    }
}

/// Whether a temporary's writer is gone. What no store wrote is left alone until it is old.
fn is_left_behind(path: &Path, name: &str, observer: &Owner) -> bool {
    let Ok(age) = newest(path).map(age) else { return false };
    match name.split_once(',').and_then(|(_, label)| Owner::parse(label)) {
        Some(owner) => owner.is_gone(observer, age),
        None => age > crate::FOREIGN_AGE_MAX,
    }
}

/// The latest modification of a file, or of what a directory holds.
fn newest(path: &Path) -> std::io::Result<SystemTime> {
    let metadata = std::fs::symlink_metadata(path)?;
    let mut newest = metadata.modified()?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path)? {
            newest = newest.max(entry?.metadata()?.modified()?);
        }
    }
    Ok(newest)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
