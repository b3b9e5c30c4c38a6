//! What a user may name to run: a reference, or a squashfs or SIF file by its path.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sarus_oci::{Execution, Reference};

use crate::load::{settings, sif};
use crate::{ImageError, LoadError};

/// Endings by which a path is known as one even when there is no such file.
const ENDINGS: [&str; 5] = ["sqsh", "squashfs", "sqfs", "sfs", "sif"];

/// What an argument names.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// An image of a registry or the store.
    Reference(Reference),
    /// An image file.
    File(ImageFile),
}

/// A squashfs image in a file outside the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// Absolute path.
    pub path: PathBuf,
    /// Byte of the file at which the image begins: 0 but in a SIF file.
    pub offset: u64,
    /// How it wants to be run, where Singularity or Apptainer made it.
    pub execution: Execution,
}

impl Target {
    /// Tells a path from a reference: a path has a `/` and there is a file of that name, or it
    /// ends in `.sqsh`, `.squashfs`, `.sqfs`, `.sfs` or `.sif`.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is no squashfs image; the reference breaks the grammar.
    pub fn find(given: &OsStr) -> Result<Self, ImageError> {
        if names_file(given) {
            return ImageFile::open(Path::new(given)).map(Self::File);
        }
        // What is not UTF-8 breaks the grammar of references, whose error shows it.
        Reference::parse(&given.to_string_lossy()).map(Self::Reference).map_err(ImageError::from)
    }
}

/// Whether an argument is the path of an image file, and no reference.
pub(crate) fn names_file(given: &OsStr) -> bool {
    let path = Path::new(given);
    let by_ending =
        path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
    by_ending || (given.as_bytes().contains(&b'/') && path.is_file())
}

impl ImageFile {
    /// Looks whether the file is a squashfs image that is complete, or a SIF file with one.
    ///
    /// # Errors
    ///
    /// [`ImageError::OpenFile`], [`ImageError::NotSquashfs`], [`ImageError::Load`] for a SIF file.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let failed = |source| ImageError::OpenFile { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(ImageError::NotAFile { path: path.to_owned() });
        }
        let offset = if sif::is_sif(&file) {
            let from = path.display().to_string();
            let found = sif::root_partition(&file);
            found.map_err(|source| LoadError::Sif { from, source })?.offset
        } else {
            0
        };
        sarus_squash::probe_at(&file, offset)
            .map_err(|source| ImageError::NotSquashfs { path: path.to_owned(), source })?;
        let execution = settings::read(&file, offset).unwrap_or_else(|error| {
            log::debug!("the settings in `{}` cannot be read: {error}", path.display());
            Execution::default()
        });
        Ok(Self { path: std::path::absolute(path).map_err(failed)?, offset, execution })
    }
}
