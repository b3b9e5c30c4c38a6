//! Whether an image is what it was when it was stored.

use std::fs::File;
use std::path::Path;

use sarus_squash::Image as Squashfs;
use sarus_squash::browse::{self, Checked};
use sarus_store::{Image, Verified};

use crate::{ImageError, ImageFile};

/// How much of an image is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The metadata, and length and digest of the squashfs file.
    Digest,
    /// Besides, every inode, listing and block in it is read and decompressed.
    Deep,
}

/// What was found to be sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soundness {
    /// What of the file was compared with what the store wrote.
    pub file: Verified,
    /// What of its content was read.
    pub content: Option<Checked>,
}

/// Verifies an image of a store: that its metadata are those of its digest, that the squashfs file
/// is the one that was written, and with [`Depth::Deep`] that all of it can be read.
///
/// # Errors
///
/// The first fault that is found, with the path of the file, and where it is in the image.
pub fn verify(image: &Image, depth: Depth) -> Result<Soundness, ImageError> {
    let unlike = |found: String, expected: String| {
        let path = image.squashfs.clone();
        Err(ImageError::Unlike { path, found, expected })
    };
    let metadata = &image.metadata;
    if metadata.digest != image.digest {
        let directory = image.squashfs.parent().unwrap_or(&image.squashfs);
        return Err(ImageError::Unlike {
            path: directory.to_owned(),
            found: format!("the name of {}", image.digest),
            expected: metadata.digest.to_string(),
        });
    }
    let file = image.verify()?;
    let opened = open(&image.squashfs)?;
    let squashfs = squashfs((&opened, 0), &image.squashfs)?;
    let superblock = squashfs.superblock();
    let (found, expected) = (usize::from(superblock.ids), metadata.ids.len());
    if found != expected {
        return unlike(format!("{found} owners"), expected.to_string());
    }
    let (found, expected) = (superblock.block_size, metadata.conversion.block_size);
    if found != expected {
        return unlike(format!("blocks of {found} bytes"), expected.to_string());
    }
    let content = match depth {
        Depth::Digest => None,
        Depth::Deep => Some(check(&squashfs, &image.squashfs)?),
    };
    Ok(Soundness { file, content })
}

/// Reads all of a squashfs file or of the one in a SIF file, that is in no store, and of which nothing else is known.
///
/// # Errors
///
/// The first fault that is found, with the path of the file, and where it is in the image.
pub fn verify_file(path: &Path) -> Result<Checked, ImageError> {
    let image = ImageFile::open(path)?;
    let file = open(&image.path)?;
    check(&squashfs((&file, image.offset), path)?, path)
}

fn open(path: &Path) -> Result<File, ImageError> {
    File::open(path).map_err(|source| ImageError::OpenFile { path: path.to_owned(), source })
}

fn squashfs<'a>((file, offset): (&'a File, u64), path: &Path) -> Result<Squashfs<'a>, ImageError> {
    let opened = Squashfs::open_at(file, offset);
    opened.map_err(|source| ImageError::NotSquashfs { path: path.to_owned(), source })
}

fn check(squashfs: &Squashfs<'_>, path: &Path) -> Result<Checked, ImageError> {
    let image = path.display().to_string();
    browse::check(squashfs).map_err(|source| ImageError::Look { image, source })
}
