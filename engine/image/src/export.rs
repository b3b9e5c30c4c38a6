//! An image of the store as a file of its own, with the owners that it has in the registry; and
//! an image file as a directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sarus_squash::{UnpackOptions, Unpacked};
use sarus_store::Image;

use crate::ImageError;

/// Writes `image` to `file`; a file that is there is replaced only with `replace`. Written aside
/// in the same directory and renamed: whoever reads `file` sees all of it.
///
/// # Errors
///
/// [`ImageError`]; `file` is as it was.
pub fn export(image: &Image, file: &Path, replace: bool) -> Result<(), ImageError> {
    if file == Path::new("-") {
        return Err(ImageError::ExportToStream);
    }
    let existing = file.symlink_metadata();
    if existing.as_ref().is_ok_and(std::fs::Metadata::is_dir) {
        let source = io::Error::from(io::ErrorKind::IsADirectory);
        return Err(ImageError::Export { path: file.to_owned(), source });
    }
    if existing.is_ok() && !replace {
        return Err(ImageError::ExportExists { path: file.to_owned() });
    }
    let aside = Aside::create(file)?;
    let failed = |source| ImageError::OpenFile { path: image.squashfs.clone(), source };
    let squashfs = File::open(&image.squashfs).map_err(failed)?;
    sarus_squash::restore_owners(&squashfs, &aside.file, &image.metadata.ids)
        .map_err(|source| ImageError::RestoreOwners { path: file.to_owned(), source })?;
    aside.publish(file, replace)
}

/// Unpacks the image file at `path` into `directory`, which exists and is empty.
///
/// # Errors
///
/// [`ImageError`]; what was made in `directory` stays.
pub fn unpack(path: &Path, directory: &Path) -> Result<Unpacked, ImageError> {
    let failed = |source| ImageError::OpenFile { path: path.to_owned(), source };
    let image = File::open(path).map_err(failed)?;
    let target = File::open(directory)
        .map_err(|source| ImageError::Directory { path: directory.to_owned(), source })?;
    sarus_squash::unpack(&image, target.as_fd(), &UnpackOptions::default()).map_err(|source| {
        ImageError::Unpack { path: path.to_owned(), directory: directory.to_owned(), source }
    })
}

/// A file that is gone when it is dropped before it is published.
struct Aside {
    path: PathBuf,
    file: File,
    published: bool,
}

impl Aside {
    fn create(target: &Path) -> Result<Self, ImageError> {
        let mut name = std::ffi::OsString::from(".");
        name.push(target.file_name().unwrap_or_default());
        name.push(format!(".sarus-{}", std::process::id()));
        let path = target.with_file_name(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(&path)
            .map_err(|source| ImageError::Export { path: target.to_owned(), source })?;
        Ok(Self { path, file, published: false })
    }

    fn publish(mut self, target: &Path, replace: bool) -> Result<(), ImageError> {
        let failed = |source| ImageError::Export { path: target.to_owned(), source };
        self.file.sync_all().map_err(failed)?;
        if replace {
            std::fs::rename(&self.path, target).map_err(failed)?;
            self.published = true;
            return Ok(());
        }
        // A link, unlike a rename, refuses a name that somebody has taken meanwhile.
        match std::fs::hard_link(&self.path, target) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(ImageError::ExportExists { path: target.to_owned() })
            }
            Err(_no_links) => {
                std::fs::rename(&self.path, target).map_err(failed)?;
                self.published = true;
                Ok(())
            }
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::debug!("`{}` stays: {error}", self.path.display());
        }
    }
}
