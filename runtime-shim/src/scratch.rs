//! The run's node-local directory, where `sarus_sys::scratch` puts it.

use std::path::{Path, PathBuf};

use sarus_config::Config;
use sarus_sys::scratch;

use crate::error::{ShimError, cannot};
use crate::image::Run;

fn parent(config: &Config) -> PathBuf {
    scratch::parent(config.temp_dir.as_deref())
}

/// The directory of the run; it may not exist.
pub(crate) fn path(run: &Run<'_>) -> PathBuf {
    scratch::path(&parent(run.config), run.caller.uid, run.supervisor)
}

/// Makes the directory, or one in it, for its owner only.
pub(crate) fn make(path: &Path) -> Result<(), ShimError> {
    scratch::make(path)
        .map_err(cannot("make a directory for the run; `tempDir` in sarus.json names where"))
}

/// Removes the directory if it was made.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = scratch::remove(path) {
        log::warn!("cannot remove `{}`: {error}", path.display());
    }
}

/// Removes the directories of the user's runs whose supervisor is gone.
pub(crate) fn sweep(config: &Config) {
    scratch::sweep(&parent(config));
}
