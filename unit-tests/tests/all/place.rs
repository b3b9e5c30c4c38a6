//! A store for one test.

use sarus_store::Store;
use tempfile::TempDir;

/// A store in a directory of its own.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
    pub(crate) store: Store,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("sarus"));
        Self { directory, store }
    }
}
