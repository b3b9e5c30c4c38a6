//! An image that is looked into without being run: one of a store, or a squashfs file.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use sarus_oci::Platform;
use sarus_squash::Image as Squashfs;
use sarus_squash::browse::{BrowseError, Subject};

use crate::file::names_file;
use crate::{ImageError, ImageFile, Stores};

/// An image, opened. Its file stays readable though the image be removed meanwhile.
#[derive(Debug)]
pub struct Looked {
    name: String,
    path: PathBuf,
    file: File,
    /// Byte of the file at which the image begins.
    offset: u64,
    ids: Option<Vec<u32>>,
}

impl Looked {
    /// Opens what `given` names: a squashfs file by its path, else an image of `stores` by
    /// reference, digest or the beginning of its id.
    ///
    /// # Errors
    ///
    /// [`ImageError`]: there is none, or it cannot be read.
    pub fn open(stores: &Stores, given: &OsStr, platform: &Platform) -> Result<Self, ImageError> {
        let name = given.to_string_lossy().into_owned();
        let (path, offset, ids) = if names_file(given) {
            let file = ImageFile::open(Path::new(given))?;
            (file.path, file.offset, None)
        } else {
            let image = stores.find(&name, platform)?.image;
            (image.squashfs, 0, Some(image.metadata.ids))
        };
        let file = File::open(&path)
            .map_err(|source| ImageError::OpenFile { path: path.clone(), source })?;
        Ok(Self { name, path, file, offset, ids })
    }

    /// The squashfs in it.
    ///
    /// # Errors
    ///
    /// [`ImageError::NotSquashfs`], also for a compressor that is not built in.
    pub fn squashfs(&self) -> Result<Squashfs<'_>, ImageError> {
        Squashfs::open_at(&self.file, self.offset)
            .map_err(|source| ImageError::NotSquashfs { path: self.path.clone(), source })
    }

    /// The image's own owners by index, where the squashfs itself has zeros.
    pub fn ids(&self) -> Option<&[u32]> {
        self.ids.as_deref()
    }

    /// For a comparison with another image.
    pub fn subject<'a>(&'a self, squashfs: &'a Squashfs<'a>) -> Subject<'a> {
        Subject { image: squashfs, ids: self.ids() }
    }

    /// The error of a failure in this image.
    pub fn failure(&self, source: BrowseError) -> ImageError {
        ImageError::Look { image: self.name.clone(), source }
    }
}
