//! Node-local directories of runs, where `sarus_sys::scratch` puts them.

use std::path::{Path, PathBuf};

use sarus_config::Config;
use sarus_sys::scratch::{self, Scratch};

use crate::error::ShimError;
use crate::image::Run;

/// Where they are, unless the user names another place for the writable layer.
pub(crate) fn parent(config: &Config) -> PathBuf {
    scratch::parent(config.temp_dir.as_deref())
}

/// Where those of a run are: there, and where its writable layer is to be.
pub(crate) fn parents(run: &Run<'_>) -> Vec<PathBuf> {
    std::iter::once(parent(run.config)).chain(run.writable_directory()).collect()
}

/// Makes a directory that the user `uid` holds.
pub(crate) fn make(parent: &Path, uid: u32) -> Result<Scratch, ShimError> {
    Scratch::make(parent, uid)
        .map_err(|source| ShimError::Scratch { path: parent.to_owned(), source })
}

/// Removes the directories of the user's that nobody holds, where those of the run are.
pub(crate) fn sweep(run: &Run<'_>) {
    for parent in parents(run) {
        scratch::sweep(&parent);
    }
}
