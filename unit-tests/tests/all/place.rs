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
        Self::at(tempfile::tempdir().unwrap())
    }

    /// In memory, for tests that write a lot: nothing waits for a disk to synchronise.
    pub(crate) fn in_memory() -> Self {
        Self::at(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn at(directory: TempDir) -> Self {
        let store = Store::open(directory.path().join("sarus"));
        Self { directory, store }
    }
}
