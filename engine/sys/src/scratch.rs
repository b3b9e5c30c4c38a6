//! Node-local directories of one run, for what cannot be in memory.
//!
//! Made only where a node lacks FUSE or the kernel keeps no attributes in memory. The name says
//! who made it, so that a later command of the same user removes what a killed run left.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::process::start_time;

/// The directory that holds such directories: the configured one, else `TMPDIR`, else `/tmp`.
pub fn parent(configured: Option<&Path>) -> PathBuf {
    let from_environment = || std::env::var_os("TMPDIR").map(PathBuf::from);
    let given = configured.map(Path::to_owned).or_else(from_environment);
    given.filter(|path| path.is_absolute()).unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// The directory in `parent` of the run of user `uid` that `supervisor` supervises; it may not
/// exist. The user is given since the caller may be in a user namespace where they are another.
pub fn path(parent: &Path, uid: u32, supervisor: i32) -> PathBuf {
    let started = start_time(supervisor).unwrap_or(0);
    parent.join(format!("{}{supervisor}-{started}", prefix(uid)))
}

fn prefix(uid: u32) -> String {
    format!("sarus-run-{uid}-")
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Makes the directory, for its owner only.
///
/// # Errors
///
/// Those of `mkdir(2)`; what has the name already is left as it is.
pub fn make(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)
}

/// Removes a directory with all that is in it. What is absent, a link or somebody else's is left.
///
/// # Errors
///
/// Those of the removal; part of the content may be gone then.
pub fn remove(path: &Path) -> io::Result<()> {
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

/// Removes the directories in `parent` of the calling user's runs whose supervisor is gone;
/// returns how many there were. What cannot be removed stays for a later command.
pub fn sweep(parent: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(parent) else { return 0 };
    let prefix = prefix(own_uid());
    let is_left = |name: &str| {
        let (pid, started) = name.strip_prefix(&prefix)?.split_once('-')?;
        let started: u64 = started.parse().ok()?;
        Some(start_time(pid.parse().ok()?) != Some(started))
    };
    let left = entries
        .map_while(Result::ok)
        .filter(|entry| entry.file_name().to_str().and_then(is_left).unwrap_or(false));
    left.filter(|entry| remove(&entry.path()).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_supervisor_left_goes_and_all_else_stays() {
        let directory = std::env::temp_dir().join(format!("sarus-scratch-{}", std::process::id()));
        make(&directory).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let mine = path(&directory, own_uid(), me);
        // The same process id with another start time is another process.
        let dead = directory.join(format!("{}{me}-1", prefix(own_uid())));
        let closed = dead.join("closed");
        let foreign = directory.join("something-else-1-1");
        let odd = directory.join(format!("{}no-number", prefix(own_uid())));
        for made in [&mine, &dead, &closed, &foreign, &odd] {
            make(made).unwrap();
        }
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o0)).unwrap();
        // A link that somebody planted leads nowhere.
        let link = directory.join(format!("{}{me}-2", prefix(own_uid())));
        std::os::unix::fs::symlink(&foreign, &link).unwrap();
        sweep(&directory);
        assert!(!dead.exists());
        for kept in [&mine, &foreign, &odd] {
            assert!(kept.exists(), "{}", kept.display());
        }
        assert!(link.is_symlink());
        remove(&directory).unwrap();
        assert!(!directory.exists());
        remove(&directory).unwrap();
    }

    #[test]
    fn a_relative_directory_is_none() {
        assert_eq!(parent(Some(Path::new("/scratch"))), Path::new("/scratch"));
        assert_eq!(parent(Some(Path::new("scratch"))), Path::new("/tmp"));
    }
}
