//! Node-local directories of one run, for what cannot be in memory.
//!
//! Made only where a node lacks FUSE or the kernel keeps no attributes in memory. The name says
//! who made it, so that a later command of the same user removes what a killed run left.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sarus_config::Config;

use crate::error::{ShimError, cannot};

/// The directory that holds such directories: `tempDir`, else `TMPDIR`, else `/tmp`.
pub(crate) fn parent(config: &Config) -> PathBuf {
    let from_environment = || std::env::var_os("TMPDIR").map(PathBuf::from);
    let given = config.temp_dir.clone().or_else(from_environment);
    given.filter(|path| path.is_absolute()).unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// The directory of the run that `supervisor` supervises; it may not exist.
pub(crate) fn path(config: &Config, supervisor: i32) -> PathBuf {
    let uid = rustix::process::getuid().as_raw();
    let started = sarus_sys::process::start_time(supervisor).unwrap_or(0);
    parent(config).join(format!("{}{supervisor}-{started}", prefix(uid)))
}

fn prefix(uid: u32) -> String {
    format!("sarus-run-{uid}-")
}

/// Makes the directory, for its owner only.
pub(crate) fn make(path: &Path) -> Result<(), ShimError> {
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(cannot("make a directory for the run; `tempDir` in sarus.json names where"))
}

/// Removes the directory if it was made.
pub(crate) fn remove(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    let uid = rustix::process::getuid().as_raw();
    // Others can make names in the directory above: what is not ours, or a link, stays.
    if path.symlink_metadata().is_ok_and(|found| found.is_dir() && found.uid() == uid) {
        // Directories of the image may be closed to their owner; so may overlayfs' own.
        open_up(path);
        if let Err(error) = std::fs::remove_dir_all(path) {
            log::warn!("cannot remove `{}`: {error}", path.display());
        }
    }
}

fn open_up(directory: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _not_mine = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700));
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.map_while(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// Removes the directories of the user's runs whose supervisor is gone.
pub(crate) fn sweep(config: &Config) {
    let Ok(entries) = std::fs::read_dir(parent(config)) else { return };
    let prefix = prefix(rustix::process::getuid().as_raw());
    for entry in entries.map_while(Result::ok) {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(&prefix)?.split_once('-'));
        let Some((pid, started)) = owner else { continue };
        let alive = pid.parse().ok().and_then(sarus_sys::process::start_time);
        if alive != started.parse().ok() || alive.is_none() {
            remove(&entry.path());
        }
    }
}
