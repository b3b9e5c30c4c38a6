//! Entries of the target directory, made and opened by descriptor.
//!
//! No path is resolved by the kernel: each component is opened by itself and never as a symbolic
//! link, so that nothing in the image, nor anybody who changes the target meanwhile, can lead
//! outside. Knows nothing of the image's format.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatVfs, Timespec, Timestamps, XattrFlags, fstatvfs,
};
use rustix::io::{Errno, Result};

const DIRECTORY_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub(super) fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Opens a directory below `root` component by component; an empty path is `root` itself.
pub(super) fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let mut open = rustix::fs::openat(root, c".", DIRECTORY_FLAGS, Mode::empty())?;
    for component in path.split(|&byte| byte == b'/').filter(|component| !component.is_empty()) {
        open = rustix::fs::openat(&open, name(component), DIRECTORY_FLAGS, Mode::empty())?;
    }
    Ok(open)
}

/// Makes a file that was not there.
pub(super) fn create_file(directory: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name(path), flags, Mode::RUSR | Mode::WUSR)
}

/// Makes a directory that its maker can fill; its own mode comes last.
pub(super) fn create_directory(directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
    rustix::fs::mkdirat(directory, name(path), Mode::RWXU)
}

/// Makes a device, a named pipe or a socket.
pub(super) fn create_node(
    directory: BorrowedFd<'_>,
    path: &[u8],
    (kind, device): (FileType, u64),
) -> Result<()> {
    rustix::fs::mknodat(directory, name(path), kind, Mode::RUSR | Mode::WUSR, device)
}

/// Whether an error says that this user cannot make devices here.
pub(super) fn is_refusal(error: Errno) -> bool {
    matches!(error, Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL)
}

fn times(mtime: u32) -> Timestamps {
    let time = Timespec { tv_sec: i64::from(mtime), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets mode and time of an open file or directory.
pub(super) fn complete(open: BorrowedFd<'_>, mode: u16, mtime: u32) -> Result<()> {
    rustix::fs::fchmod(open, Mode::from_raw_mode(u32::from(mode)))?;
    rustix::fs::futimens(open, &times(mtime))
}

/// Sets mode (symbolic links have none) and time of an entry that is not opened.
pub(super) fn complete_at(
    directory: BorrowedFd<'_>,
    path: &[u8],
    (mode, mtime): (Option<u16>, u32),
) -> Result<()> {
    if let Some(mode) = mode {
        let mode = Mode::from_raw_mode(u32::from(mode));
        rustix::fs::chmodat(directory, name(path), mode, AtFlags::empty())?;
    }
    rustix::fs::utimensat(directory, name(path), &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets a `user.` attribute as far as the file system can.
pub(super) fn set_xattr(open: BorrowedFd<'_>, attribute: &[u8], value: &[u8]) {
    if !attribute.starts_with(b"user.") {
        return;
    }
    if let Err(error) = rustix::fs::fsetxattr(open, name(attribute), value, XattrFlags::empty()) {
        log::debug!("attribute `{}` is left out: {error}", attribute.escape_ascii());
    }
}

/// Bytes and inodes available to the caller; file systems without a number of inodes have any.
pub(super) fn available(directory: impl AsFd) -> Result<(u64, u64)> {
    let StatVfs { f_bavail, f_frsize, f_files, f_favail, .. } = fstatvfs(directory)?;
    let inodes = if f_files == 0 { u64::MAX } else { f_favail };
    Ok((f_bavail.saturating_mul(f_frsize), inodes))
}
