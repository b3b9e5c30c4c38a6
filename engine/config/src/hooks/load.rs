//! Which hook files are read, in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::{Hook, HookError};
use crate::{Config, document, load as config_load};

/// The directories that hold hook files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directories {
    /// Sarus's own: all their files count.
    pub own: Vec<PathBuf>,
    /// Those shared with other engines: a file masks those of the same name in later directories.
    pub containers: Vec<PathBuf>,
}

impl Directories {
    /// Those that the configuration names.
    pub fn of(config: &Config) -> Self {
        let shared = ["/etc/containers/oci/hooks.d", "/usr/share/containers/oci/hooks.d"];
        let containers =
            if config.containers_hooks { shared.map(PathBuf::from).to_vec() } else { Vec::new() };
        Self { own: config.hooks_dirs.clone(), containers }
    }

    /// Those that exist, all of which the privileged shim has to check: who can write to one can
    /// add a hook.
    pub fn existing(&self) -> Vec<PathBuf> {
        self.own.iter().chain(&self.containers).filter(|path| path.exists()).cloned().collect()
    }
}

/// The hook files: those whose name ends in `.json`, in the order of their names' bytes over all
/// directories; of equal names Sarus's own first, then in the order of the directories. A directory
/// that does not exist has none.
///
/// # Errors
///
/// [`HookError::List`]
pub fn files(directories: &Directories) -> Result<Vec<PathBuf>, HookError> {
    let mut found: Vec<(OsString, PathBuf)> = Vec::new();
    let mut seen = BTreeSet::new();
    for directory in directories.own.iter().filter(|directory| seen.insert(*directory)) {
        found.extend(list(directory)?);
    }
    let mut shared = BTreeMap::new();
    for directory in &directories.containers {
        for (name, path) in list(directory)? {
            shared.entry(name).or_insert(path);
        }
    }
    found.extend(shared);
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn list(directory: &Path) -> Result<Vec<(OsString, PathBuf)>, HookError> {
    let failed = |source| HookError::List { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if config_load::is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.as_bytes().ends_with(b".json") {
            files.push((name, entry.path()));
        }
    }
    Ok(files)
}

/// Reads and parses the hook files, in the order of [`files`].
///
/// # Errors
///
/// The first directory or file that cannot be read, or is not valid.
pub fn load(directories: &Directories) -> Result<Vec<Hook>, HookError> {
    files(directories)?.iter().map(|file| load_file(file)).collect()
}

fn load_file(file: &Path) -> Result<Hook, HookError> {
    let bytes = config_load::read(file)
        .map_err(|source| HookError::Read { path: file.to_owned(), source })?;
    let text = document::text(&bytes)
        .map_err(|fault| HookError::Invalid { path: file.to_owned(), fault })?;
    Hook::parse(text, file)
}

/// What the privileged shim has to give to [`crate::check_trusted`] before it uses these hooks:
/// each file, and each program that runs on the host.
pub fn paths_to_check(hooks: &[Hook]) -> Vec<PathBuf> {
    let outside =
        |hook: &Hook| hook.stages.iter().any(|stage| *stage != super::Stage::StartContainer);
    let mut paths = BTreeSet::new();
    for hook in hooks {
        paths.insert(hook.file.clone());
        if outside(hook) {
            paths.insert(hook.path.clone());
        }
    }
    paths.into_iter().collect()
}
