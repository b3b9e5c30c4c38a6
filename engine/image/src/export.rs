//! An image of the store as a file of its own, with the owners that it has in the registry; and
//! an image file as a directory.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, linkat};
use sarus_squash::{UnpackOptions, Unpacked};
use sarus_store::{Image, Owner};

use crate::ImageError;

/// Begins the name of a file that is being written.
const ASIDE: &str = ".sarus-export,";

/// Opens a file without a name, `open(2)`.
#[expect(clippy::cast_possible_wrap, reason = "the flag is far below the sign bit")]
const O_TMPFILE: i32 = OFlags::TMPFILE.bits() as i32;

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
    // `/dev/null` is not to become a file.
    if file.metadata().is_ok_and(|found| !found.is_file()) {
        let source = io::Error::other("it is no regular file");
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
    unpack_at((path, 0), directory)
}

/// As [`unpack`], for an image that begins at byte `offset` of the file.
///
/// # Errors
///
/// As [`unpack`].
pub fn unpack_at((path, offset): (&Path, u64), directory: &Path) -> Result<Unpacked, ImageError> {
    let failed = |source| ImageError::OpenFile { path: path.to_owned(), source };
    let image = File::open(path).map_err(failed)?;
    let target = File::open(directory)
        .map_err(|source| ImageError::Directory { path: directory.to_owned(), source })?;
    let options = UnpackOptions::default();
    sarus_squash::unpack_at((&image, offset), target.as_fd(), &options).map_err(|source| {
        ImageError::Unpack { path: path.to_owned(), directory: directory.to_owned(), source }
    })
}

/// A file that is gone when it is dropped before it is published, and, where the file system
/// makes files without a name, also when this process is killed.
struct Aside {
    /// Its name, where it has one, and the one it gets on the way to replace another file.
    path: PathBuf,
    file: File,
    named: bool,
}

impl Aside {
    fn create(target: &Path) -> Result<Self, ImageError> {
        let failed = |source| ImageError::Export { path: target.to_owned(), source };
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        let path = directory.join(format!("{ASIDE}{}", Owner::current().label()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o666);
        let unnamed = options.clone().custom_flags(O_TMPFILE).open(directory);
        if let Ok(file) = unnamed {
            return Ok(Self { path, file, named: false });
        }
        remove_left_behind(directory);
        let file = options.create_new(true).open(&path).map_err(failed)?;
        Ok(Self { path, file, named: true })
    }

    fn publish(mut self, target: &Path, replace: bool) -> Result<(), ImageError> {
        let failed = |source| ImageError::Export { path: target.to_owned(), source };
        self.file.sync_all().map_err(failed)?;
        if !replace {
            // A link, unlike a rename, refuses a name that somebody has taken meanwhile.
            match self.link(target) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(ImageError::ExportExists { path: target.to_owned() });
                }
                Err(error) if !self.named => return Err(failed(error)),
                Err(_no_links) => {}
            }
        }
        if !self.named {
            self.link(&self.path).map_err(failed)?;
            self.named = true;
        }
        std::fs::rename(&self.path, target).map_err(failed)?;
        self.named = false;
        Ok(())
    }

    fn link(&self, name: &Path) -> io::Result<()> {
        if self.named {
            return std::fs::hard_link(&self.path, name);
        }
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(linkat(CWD, own, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.named
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::debug!("`{}` stays: {error}", self.path.display());
        }
    }
}

/// Removes what killed exports left in a directory whose file system needs names.
fn remove_left_behind(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let me = Owner::current();
    for entry in entries.map_while(Result::ok) {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| Owner::parse(name.strip_prefix(ASIDE)?));
        let modified = entry.metadata().and_then(|found| found.modified());
        let age = modified.ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
        if owner.is_some_and(|owner| owner.is_gone(&me, age))
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            log::debug!("`{}` stays: {error}", entry.path().display());
        }
    }
}
