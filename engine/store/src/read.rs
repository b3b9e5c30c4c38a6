//! Reading the store: by name, by digest, and whole. Takes no lock and writes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sarus_oci::{Digest, Platform, Reference};

use crate::disk::{list, parse, read_small};
use crate::layout::{
    BLOBS, IMAGES, LEASES, METADATA, NAMES, REMOVED, SQUASHFS, TEMPORARIES, digest_name,
    is_name_file, name_file,
};
use crate::sweep::Survey;
use crate::{Blobs, Image, Metadata, Name, Remembered, StoreError, Summary, spread};

/// Longest name file that is read, in bytes.
pub(crate) const NAME_BYTES_MAX: u64 = 64 << 10;

/// Longest metadata file that is read, in bytes; a configuration with many labels stays far below.
const METADATA_BYTES_MAX: u64 = 16 << 20;

/// An image store below one directory. Opening it touches no disk.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// For reading only.
    Read,
    /// A user's own: the root directory is made with mode 0700.
    Private,
    /// A site's, read by all: the root directory is made with mode 0755.
    Shared,
}

/// All that a store holds.
#[derive(Debug, Default)]
pub struct Listing {
    /// The names, sorted by reference and platform.
    pub names: Vec<Name>,
    /// The images by digest, those without a name too; not those marked for removal that no name
    /// points at.
    pub images: BTreeMap<Digest, Summary>,
    /// What could not be read.
    pub damaged: Vec<StoreError>,
}

impl Store {
    /// A user's own store; the first write makes its directory, mode 0700.
    pub fn open(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), access: Access::Private }
    }

    /// A store that all users read, to be written; the first write makes its directory, mode 0755.
    pub fn open_shared(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), access: Access::Shared }
    }

    /// A store for reading only: every operation that writes is refused.
    pub fn open_read_only(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), access: Access::Read }
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether operations that write are refused.
    pub fn is_read_only(&self) -> bool {
        self.access == Access::Read
    }

    /// The cache of blobs that belongs to the store.
    pub fn blobs(&self) -> Blobs<'_> {
        Blobs::new(self)
    }

    /// The image that `reference` means on `platform`; none when the store has no such name.
    /// A reference with a digest that no name carries finds the image of that manifest digest,
    /// unless that one is to be removed.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is damaged, a squashfs file of another length than its
    /// metadata says.
    pub fn lookup(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<Image>, StoreError> {
        let reference = &self.in_full(reference, platform)?;
        if let Some(name) = self.read_name(&self.name_path(reference, platform))? {
            return self.image(&name.digest);
        }
        let Some(digest) = reference.digest() else { return Ok(None) };
        // Who gave it a name may have been killed before the mark was gone. Only then is there a
        // look at all names.
        if self.image_directory(digest).join(REMOVED).exists() && !self.has_name(digest)? {
            return Ok(None);
        }
        self.image(digest)
    }

    /// The name file of `reference` on `platform`; none when there is none.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is damaged.
    pub fn name(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Option<Name>, StoreError> {
        self.read_name(&self.name_path(&self.in_full(reference, platform)?, platform))
    }

    /// The image of that manifest digest, whether a name points at it or not; none when the
    /// store does not have it.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is damaged, a squashfs file of another length than its
    /// metadata says.
    pub fn image(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        Ok(self.read_image(digest)?.map(|(image, _)| image))
    }

    /// An image, and the length of its metadata in bytes.
    fn read_image(&self, digest: &Digest) -> Result<Option<(Image, u64)>, StoreError> {
        let directory = self.image_directory(digest);
        let path = directory.join(METADATA);
        let Some(json) = read_small(&path, METADATA_BYTES_MAX)? else { return Ok(None) };
        let metadata: Metadata = parse(&path, &json)?;
        let squashfs = directory.join(SQUASHFS);
        let got = match std::fs::metadata(&squashfs) {
            Ok(metadata) => metadata.len(),
            // Removed since its metadata was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !path.exists() => {
                return Ok(None);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(StoreError::read(&squashfs)(error)),
        };
        let expected = metadata.conversion.bytes;
        if got != expected {
            return Err(StoreError::Length { path: squashfs, got, expected });
        }
        let image = Image { digest: digest.clone(), squashfs, metadata };
        Ok(Some((image, json.len() as u64)))
    }

    /// What is kept of an image with each of its names; none when the store does not have it.
    pub(crate) fn remember(&self, digest: &Digest) -> Result<Option<Remembered>, StoreError> {
        let read = self.read_image(digest)?;
        Ok(read.map(|(image, metadata_bytes)| Remembered {
            metadata_bytes,
            summary: image.metadata.summary(),
        }))
    }

    /// All that the store holds. What is damaged is listed, and does not hide the rest; of the
    /// files of an image that has a name only the lengths are looked at.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn list(&self) -> Result<Listing, StoreError> {
        Ok(self.list_surveyed(self.survey_for_list()?))
    }

    /// The listing of what was seen by [`Store::survey`].
    pub(crate) fn list_surveyed(&self, mut survey: Survey) -> Listing {
        let remembered = |name: &Name| {
            let remembered = name.image.as_ref()?;
            Some((name.digest.clone(), remembered.summary.clone()))
        };
        let mut images: BTreeMap<_, _> = survey.names.iter().filter_map(remembered).collect();
        let mut damaged = std::mem::take(&mut survey.damaged);
        let is_shown = |digest: &Digest, mark: Option<SystemTime>| {
            !images.contains_key(digest) && (mark.is_none() || survey.has_name(digest))
        };
        let asked: Vec<&Digest> = survey
            .images
            .iter()
            .filter_map(|(digest, mark)| is_shown(digest, *mark).then_some(digest))
            .collect();
        let read = spread::map(&asked, |digest| self.image(digest));
        for (digest, image) in asked.into_iter().zip(read) {
            match image {
                Ok(image) => {
                    let summary = image.map(|image| (digest.clone(), image.metadata.summary()));
                    images.extend(summary);
                }
                Err(error) => damaged.push(error),
            }
        }
        Listing { names: survey.names, images, damaged }
    }

    /// The paths of all name files.
    pub(crate) fn name_paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        let directory = self.names_directory();
        let files = list(&directory)?;
        let names = files.into_iter().filter(|file| is_name_file(file));
        Ok(names.map(|file| directory.join(file)).collect())
    }

    pub(crate) fn read_name(&self, path: &Path) -> Result<Option<Name>, StoreError> {
        let Some(json) = read_small(path, NAME_BYTES_MAX)? else { return Ok(None) };
        parse(path, &json).map(Some)
    }

    pub(crate) fn name_path(&self, reference: &Reference, platform: &Platform) -> PathBuf {
        self.root.join(NAMES).join(name_file(reference, platform))
    }

    pub(crate) fn names_directory(&self) -> PathBuf {
        self.root.join(NAMES)
    }

    pub(crate) fn images_directory(&self) -> PathBuf {
        self.root.join(IMAGES)
    }

    pub(crate) fn image_directory(&self, digest: &Digest) -> PathBuf {
        self.images_directory().join(digest_name(digest))
    }

    pub(crate) fn temporaries_directory(&self) -> PathBuf {
        self.root.join(TEMPORARIES)
    }

    pub(crate) fn leases_directory(&self) -> PathBuf {
        self.root.join(LEASES)
    }

    pub(crate) fn blobs_directory(&self) -> PathBuf {
        self.root.join(BLOBS)
    }

    /// Mode of the store's own directory when it is made.
    pub(crate) fn root_mode(&self) -> u32 {
        if self.access == Access::Shared { 0o755 } else { 0o700 }
    }
}
