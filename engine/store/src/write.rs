//! Writing the store: new images, names, removal, and what killed writers left.
//!
//! Order keeps it correct: an image is in place before a name points at it; a name is gone
//! before its image is marked; a marked image is deleted only after a look at all names.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sarus_oci::{Digest, Platform, Reference};

use crate::disk::{
    make_directory, make_lasting_directory, remove_file, remove_tree, sync_directory, to_json,
    write_new,
};
use crate::layout::{METADATA, REMOVED};
use crate::{METADATA_VERSION, Name, Owner, Reason, Store, StoreError};

static SEQUENCE: AtomicU64 = AtomicU64::new(0);

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
    /// Makes `reference` mean the image `digest` on `platform`, from now on. An image that lost
    /// its last name by this is marked for removal. A short reference means docker.io's name.
    ///
    /// # Errors
    ///
    /// [`StoreError::Vanished`] when the image is not in the store (any more); an image that is
    /// damaged; a file that cannot be written.
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
        admission: Option<Reason>,
    ) -> Result<(), StoreError> {
        self.check_writable()?;
        let vanished = || StoreError::Vanished { digest: digest.to_string() };
        let directory = self.image_directory(digest);
        let remembered = self.remember(digest)?.ok_or_else(vanished)?;
        let path = self.name_path(reference, platform);
        let before = self.read_name(&path).unwrap_or_default();
        let name = Name {
            version: METADATA_VERSION,
            reference: reference.clone(),
            platform: platform.clone(),
            digest: digest.clone(),
            pulled: now(),
            admission,
            image: Some(remembered),
        };
        self.write_json(&path, &name)?;
        // A short name means docker.io's again.
        self.remember_short((reference, platform), reference)?;
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

    /// Removes a name, with the short ones that mean it, and with the last one of an image the image: after `grace`, counted from
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
        let path = match self.in_full(reference, platform) {
            Ok(full) => self.name_path(&full, platform),
            Err(error) if error.is_damage() => {
                self.forget_short_names()?;
                return Ok(Some(Removal::NameOnly));
            }
            Err(error) => return Err(error),
        };
        // A damaged name can be removed too; its image is left to the collector.
        let digest = match self.read_name(&path) {
            Ok(None) => return Ok(None),
            Ok(Some(name)) => Some(name.digest),
            Err(error) if error.is_damage() => None,
            Err(error) => return Err(error),
        };
        self.remove_name_file(&path)?;
        self.forget_short_names()?;
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
        self.forget_short_names()?;
        if grace.is_zero() {
            return self.delete(digest);
        }
        self.mark(digest)?;
        Ok(Removal::Deferred(grace))
    }

    /// Whether a name points at the image. One that cannot be read (a newer version's, another
    /// user's) counts as one that may; a damaged one points nowhere.
    pub(crate) fn has_name(&self, digest: &Digest) -> Result<bool, StoreError> {
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
    pub(crate) fn mark(&self, digest: &Digest) -> Result<(), StoreError> {
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
    pub(crate) fn delete(&self, digest: &Digest) -> Result<Removal, StoreError> {
        let directory = self.image_directory(digest);
        let aside = self.temporary("removed")?;
        match std::fs::rename(&directory, &aside) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Removal::Deleted);
            }
            other => other.map_err(StoreError::remove(&directory))?,
        }
        // Gone as a whole for good, before a part of it is.
        sync_directory(&self.images_directory())?;
        if self.has_name(digest)? && std::fs::rename(&aside, &directory).is_ok() {
            return Ok(Removal::NameOnly);
        }
        remove_tree(&aside)?;
        Ok(Removal::Deleted)
    }

    /// Writes a small file of the store in one step; its directory is made when needed.
    pub(crate) fn write_json(
        &self,
        path: &Path,
        value: &impl serde::Serialize,
    ) -> Result<(), StoreError> {
        let temporary = self.temporary("name")?;
        let json = to_json(path, value)?;
        let written = write_new(&temporary, &json).and_then(|()| publish(&temporary, path));
        if written.is_err() {
            discard(&temporary);
        }
        written
    }

    fn remove_name_file(&self, path: &Path) -> Result<(), StoreError> {
        remove_file(path)?;
        // The name is gone for good before its image is.
        sync_directory(&self.names_directory())
    }

    /// A new path in `tmp`, which is made when needed.
    pub(crate) fn temporary(&self, kind: &str) -> Result<PathBuf, StoreError> {
        self.check_writable()?;
        make_lasting_directory(self.root(), self.root_mode())?;
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

fn publish(temporary: &Path, path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().unwrap_or(path);
    make_lasting_directory(directory, 0o777)?;
    std::fs::rename(temporary, path).map_err(StoreError::publish(path))?;
    sync_directory(directory)
}

/// Removal of a temporary on the way out; a failure leaves it to [`Store::sweep`].
pub(crate) fn discard(path: &Path) {
    if let Err(error) = remove_tree(path) {
        log::debug!("left to the next command: {error}");
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
