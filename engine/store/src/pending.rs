//! An image on its way into the store.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use sarus_oci::Digest;

use crate::disk::{
    create_new, make_directory, make_lasting_directory, remove_tree, sync_directory, to_json,
    write_new,
};
use crate::layout::{METADATA, SQUASHFS};
use crate::verify::digest_of;
use crate::write::discard;
use crate::writeback::Writeback;
use crate::{Image, Metadata, Store, StoreError};

/// How often putting an image in place is tried again when others replace or remove it meanwhile.
const PUBLISH_RETRIES: usize = 16;

/// An image that is being written. Dropped without [`Pending::commit`], it is gone.
#[derive(Debug)]
#[must_use = "dropping a pending image removes it"]
pub struct Pending<'a> {
    // Dropped in this order: a network file system keeps the name of a file that is open, and with it
    // the directory.
    writeback: Writeback,
    file: File,
    place: Place<'a>,
}

/// The temporary directory of a pending image, which goes with it.
#[derive(Debug)]
struct Place<'a> {
    store: &'a Store,
    digest: Digest,
    directory: PathBuf,
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
        let place = Place { store: self, digest: digest.clone(), directory };
        Ok(Pending { writeback: Writeback::default(), file: create_new(&path)?, place })
    }
}

impl Pending<'_> {
    /// The same under another digest: that of an image without a manifest is known when its
    /// content was read.
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.place.digest = digest;
        self
    }

    /// The squashfs file, empty at first, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// To be called while the squashfs file is written, as often as is convenient, with the bytes of
    /// content that have gone into it so far: from time to time the disk is made to write what is there,
    /// so that [`Pending::commit`] has little to wait for. Does not wait itself.
    pub fn advance(&self, content: u64) {
        self.writeback.advance(&self.file, content);
    }

    /// Makes the image part of the store. Where it is there already, that one is kept: it has
    /// the same content; a damaged one is replaced.
    ///
    /// # Errors
    ///
    /// A file that cannot be written or renamed; nothing is left of the image then.
    pub fn commit(self, metadata: &Metadata) -> Result<Image, StoreError> {
        // Dropped in the opposite order.
        let Self { place, file, writeback } = self;
        let squashfs = place.directory.join(SQUASHFS);
        let got = file.metadata().map_err(StoreError::read(&squashfs))?.len();
        let expected = metadata.conversion.bytes;
        if got != expected {
            return Err(StoreError::Length { path: squashfs, got, expected });
        }
        let mut metadata = metadata.clone();
        metadata.conversion.squashfs_digest = Some(synchronise(&squashfs, &file, writeback)?);
        drop(file);
        let path = place.directory.join(METADATA);
        write_new(&path, &to_json(&path, &metadata)?)?;
        sync_directory(&place.directory)?;
        if let Some(image) = place.publish()? {
            return Ok(image);
        }
        let squashfs = place.store.image_directory(&place.digest).join(SQUASHFS);
        Ok(Image { digest: place.digest.clone(), squashfs, metadata })
    }
}

/// Makes the squashfs file last; its digest. The processor hashes while the disk writes.
fn synchronise(path: &Path, file: &File, writeback: Writeback) -> Result<Digest, StoreError> {
    std::thread::scope(|scope| {
        let synchronised = scope.spawn(|| writeback.finish().and_then(|()| file.sync_all()));
        let digest = digest_of(file).map_err(StoreError::read(path));
        match synchronised.join() {
            Ok(done) => done.map_err(StoreError::write(path))?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        digest
    })
}

impl Place<'_> {
    /// The image that was there before and is kept, if there was one.
    fn publish(&self) -> Result<Option<Image>, StoreError> {
        let images = self.store.images_directory();
        make_lasting_directory(&images, 0o777)?;
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

impl Drop for Place<'_> {
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

pub(crate) fn is_occupied(error: &std::io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOTEMPTY | Errno::EXIST))
}
