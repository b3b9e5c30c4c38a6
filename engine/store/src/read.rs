//! Reading the store: by name, by digest, and whole. Takes no lock and writes nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sarus_oci::{Digest, Platform, Reference};

use crate::disk::{Directory, list, list_if_directory, parse, read_small};
use crate::layout::{
    BLOBS, IMAGES, LEASES, METADATA, NAMES, REMOVED, SQUASHFS, TEMPORARIES, digest_name,
    platform_name, reference_name,
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
        if let Some(name) = self.name(reference, platform)? {
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
        self.read_name(&self.name_path(reference, platform))
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
    pub(crate) fn list_surveyed(&self, survey: Survey) -> Listing {
        let named: HashMap<&Digest, Option<&Remembered>> =
            survey.names.iter().map(|name| (&name.digest, name.image.as_ref())).collect();
        let mut images = BTreeMap::new();
        let mut damaged = survey.damaged;
        let is_shown = |(digest, mark): &(Digest, Option<SystemTime>)| {
            mark.is_none() || named.contains_key(digest)
        };
        let shown: Vec<_> = survey.images.into_iter().filter(is_shown).collect();
        let directory = self.images_directory();
        // Where it cannot be opened, every image says why.
        let directory = Directory::open(&directory).ok().flatten();
        let is_as_remembered = |digest: &Digest, remembered: &Remembered| {
            directory.as_ref().is_some_and(|images| is_as_remembered(images, digest, remembered))
        };
        let summaries = spread::map(&shown, |(digest, _)| match named.get(digest) {
            Some(Some(remembered)) if is_as_remembered(digest, remembered) => {
                Ok(Some(remembered.summary.clone()))
            }
            _ => Ok(self.image(digest)?.map(|image| image.metadata.summary())),
        });
        for ((digest, _), summary) in shown.iter().zip(summaries) {
            match summary {
                Ok(summary) => images.extend(summary.map(|summary| (digest.clone(), summary))),
                Err(error) => damaged.push(error),
            }
        }
        Listing { names: survey.names, images, damaged }
    }

    /// The paths of all name files.
    pub(crate) fn name_paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        let names = self.names_directory();
        let mut paths = Vec::new();
        for reference in list(&names)? {
            let directory = names.join(reference);
            // A file is none of the store's, and a directory may be gone by now.
            let files = list_if_directory(&directory)?;
            paths.extend(files.into_iter().map(|file| directory.join(file)));
        }
        Ok(paths)
    }

    pub(crate) fn read_name(&self, path: &Path) -> Result<Option<Name>, StoreError> {
        let Some(json) = read_small(path, NAME_BYTES_MAX)? else { return Ok(None) };
        parse(path, &json).map(Some)
    }

    pub(crate) fn name_path(&self, reference: &Reference, platform: &Platform) -> PathBuf {
        self.root.join(NAMES).join(reference_name(reference)).join(platform_name(platform))
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

/// Whether the files of an image are those that were there when the name was given; where not,
/// what it says is asked of the image.
fn is_as_remembered(images: &Directory<'_>, digest: &Digest, remembered: &Remembered) -> bool {
    let image = digest_name(digest);
    let has = |file, bytes| images.length(&format!("{image}/{file}")) == Some(bytes);
    has(METADATA, remembered.metadata_bytes) && has(SQUASHFS, remembered.summary.bytes)
}
