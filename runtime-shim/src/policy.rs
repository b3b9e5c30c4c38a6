//! Which images the kernel may mount on behalf of a user.
//!
//! The kernel's squashfs driver believes what it reads, so with privilege it is to read only what
//! root wrote, or what root vouched for and the kernel keeps as it is while it is mounted.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode as FileMode, OFlags, ResolveFlags, open, openat2};
use sarus_config::{Config, KernelImages, check_trusted};

use crate::caller::Caller;
use crate::image::ImageFile;

/// Largest `verifiedImages` that is read, in bytes.
const LIST_SIZE_MAX: u64 = 16 << 20;

/// Why the kernel must not mount the image for this caller; none when it may.
pub(crate) fn refusal(config: &Config, caller: &Caller, image: &ImageFile) -> Option<String> {
    let because = |why: String| format!("`kernelImages` does not admit the image: {why}");
    let refused = match config.kernel_images {
        KernelImages::Any => None,
        KernelImages::None => Some("it admits none".to_owned()),
        // Root decides for itself, but not for those who can write its files.
        KernelImages::Store | KernelImages::Verified if caller.uid == 0 => not_roots(image.file()),
        KernelImages::Store => not_in_store(config, image),
        KernelImages::Verified => match not_in_store(config, image) {
            None => None,
            Some(_) => not_verified(config, image),
        },
    };
    refused.map(because)
}

fn not_roots(file: &File) -> Option<String> {
    match file.metadata() {
        Ok(found) if found.uid() == 0 && found.mode() & 0o022 == 0 => None,
        Ok(_) => Some("others than root can write to it".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// The file must be the one that root finds below the site's store without following any link,
/// and nobody else may be able to change anything on the way to it.
fn not_in_store(config: &Config, image: &ImageFile) -> Option<String> {
    let Some(store) = &config.centralized_repository_dir else {
        return Some("there is no `centralizedRepositoryDir`".to_owned());
    };
    let Ok(relative) = image.path().strip_prefix(store) else {
        return Some(format!("it is not in the site's store `{}`", store.display()));
    };
    if let Err(error) = check_trusted(image.path()) {
        return Some(error.to_string());
    }
    match open_below(store, relative).and_then(|found| is_same(&found, image.file())) {
        Ok(true) => not_roots(image.file()),
        Ok(false) => Some("it is another file by now".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

fn open_below(store: &Path, relative: &Path) -> std::io::Result<File> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let store = open(store, directory, FileMode::empty())?;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat2(store.as_fd(), relative, flags, FileMode::empty(), how)?.into())
}

fn is_same(one: &File, other: &File) -> std::io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// The kernel refuses to read what does not have the digest that it measured, for as long as the
/// file exists; that the digest is a good one is root's word.
fn not_verified(config: &Config, image: &ImageFile) -> Option<String> {
    let Some(list) = &config.verified_images else {
        return Some("there is no `verifiedImages`".to_owned());
    };
    let digest = match sarus_sys::verity::measure(image.file().as_fd()) {
        Ok(digest) => digest,
        Err(error) => return Some(format!("it is not under fs-verity ({error})")),
    };
    let mut text = String::new();
    let read = File::open(list).and_then(|file| file.take(LIST_SIZE_MAX).read_to_string(&mut text));
    if let Err(error) = read {
        return Some(format!("cannot read `{}`: {error}", list.display()));
    }
    let vouched = text.lines().any(|line| line.trim() == digest);
    (!vouched).then(|| format!("`{}` does not have its digest {digest}", list.display()))
}
