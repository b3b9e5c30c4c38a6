//! Node-local directories of runs, for what cannot be in memory.
//!
//! Made only where a node lacks FUSE, the kernel keeps no attributes in memory, or disk was asked
//! for. Whoever uses one holds a lock on it (`flock(2)`); one that nobody holds was left by killed
//! runs, whatever boot or PID namespace they were in, and goes with the user's next command.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};

/// Times that a directory which others just removed is made again.
const ATTEMPTS_MAX: u32 = 16;

/// A directory in use. Dropped, it is removed with all that is in it, unless others hold it too;
/// the end of the process without that leaves it to [`sweep`].
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Holds the lock, together with its copies in other processes.
    lock: OwnedFd,
}

/// The directory that holds such directories: the configured one, else `TMPDIR`, else `/tmp`.
pub fn parent(configured: Option<&Path>) -> PathBuf {
    let from_environment = || std::env::var_os("TMPDIR").map(PathBuf::from);
    let given = configured.map(Path::to_owned).or_else(from_environment);
    given.filter(|path| path.is_absolute()).unwrap_or_else(|| PathBuf::from("/tmp"))
}

fn prefix(uid: u32) -> String {
    format!("sarus-run-{uid}-")
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

impl Scratch {
    /// Makes a directory in `parent`, for its owner only, and holds it. The user `uid` is given
    /// since the caller may be in a user namespace where they are another.
    ///
    /// # Errors
    ///
    /// Those of `mkdir(2)`.
    pub fn make(parent: &Path, uid: u32) -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero();
        for attempt in 0..ATTEMPTS_MAX {
            let path = parent.join(format!("{}{pid}-{attempt}", prefix(uid)));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            // A sweep may have found it before the lock did.
            if let Ok(scratch) = Self::hold(&path) {
                return Ok(scratch);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EEXIST))
    }

    /// Holds a directory that another process made and holds.
    ///
    /// # Errors
    ///
    /// Those of `open(2)`; `ENOENT` if it was removed meanwhile; `EPERM` if it is not the
    /// caller's.
    pub fn hold(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = open(path, flags, Mode::empty())?;
        rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockShared))?;
        let found = fstat(&lock)?;
        if found.st_nlink == 0 || !path.exists() {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        if found.st_uid != own_uid() {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        Ok(Self { path: path.to_owned(), lock })
    }

    /// Takes over what [`Scratch::as_fd`] of another process is a copy of.
    pub fn adopt(path: PathBuf, lock: OwnedFd) -> Self {
        Self { path, lock }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if flock(&self.lock, FlockOperation::NonBlockingLockExclusive).is_ok()
            && let Err(error) = remove(&self.path)
        {
            log::warn!("cannot remove `{}`: {error}", self.path.display());
        }
    }
}

impl AsFd for Scratch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

/// Removes a directory with all that is in it. What is absent, a link or somebody else's is left.
fn remove(path: &Path) -> io::Result<()> {
    let uid = own_uid();
    // Others can make names in the directory above.
    if !path.symlink_metadata().is_ok_and(|found| found.is_dir() && found.uid() == uid) {
        return Ok(());
    }
    // Directories of the image may be closed to their owner; so may overlayfs' own.
    open_up(path);
    std::fs::remove_dir_all(path)
}

fn open_up(directory: &Path) {
    let _not_mine = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700));
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.map_while(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Removes the directories in `parent` of the calling user that nobody holds; returns how many
/// there were. What cannot be removed stays for a later command.
pub fn sweep(parent: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(parent) else { return 0 };
    let prefix = prefix(own_uid());
    let ours = entries
        .map_while(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)));
    ours.filter(|entry| sweep_one(&entry.path())).count()
}

fn sweep_one(path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(lock) = open(path, flags, Mode::empty()) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() && remove(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_goes_and_all_else_stays() {
        let parent = tempfile::tempdir().unwrap();
        let held = Scratch::make(parent.path(), own_uid()).unwrap();
        let left_path = parent.path().join(format!("{}7-7", prefix(own_uid())));
        std::fs::DirBuilder::new().create(&left_path).unwrap();
        let closed = left_path.join("closed");
        std::fs::DirBuilder::new().mode(0o000).create(&closed).unwrap();
        let foreign = parent.path().join("something-else");
        std::fs::DirBuilder::new().create(&foreign).unwrap();
        // A link that somebody planted leads nowhere.
        let link = parent.path().join(format!("{}1-1", prefix(own_uid())));
        std::os::unix::fs::symlink(&foreign, &link).unwrap();
        assert_eq!(sweep(parent.path()), 1);
        assert!(!left_path.exists());
        assert!(held.path().exists() && foreign.exists() && link.is_symlink());
    }

    #[test]
    fn the_last_who_leaves_removes_it() {
        let parent = tempfile::tempdir().unwrap();
        let first = Scratch::make(parent.path(), own_uid()).unwrap();
        let second = Scratch::hold(first.path()).unwrap();
        let path = first.path().to_owned();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
        assert!(Scratch::hold(&path).is_err());
    }

    #[test]
    fn a_relative_directory_is_none() {
        assert_eq!(parent(Some(Path::new("/scratch"))), Path::new("/scratch"));
        assert_eq!(parent(Some(Path::new("scratch"))), Path::new("/tmp"));
    }
}
