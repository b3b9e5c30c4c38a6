//! What of the host decides a plan: whether a path exists, and what it leads to.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sarus_hook::site;

/// What a path leads to, symbolic links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A regular file.
    File {
        /// Somebody may execute it.
        executable: bool,
    },
    Directory,
    /// A device node.
    Device {
        /// `b` or `c`
        kind: char,
        major: u32,
        minor: u32,
    },
    /// A named pipe, a socket.
    Other,
}

/// The host, as plans see it; in tests a table.
pub(crate) trait Host {
    /// What a path leads to; `None` if nothing is there.
    fn look(&self, path: &Path) -> Option<Found>;

    /// What a symbolic link says; `None` if the path is none.
    fn link(&self, path: &Path) -> Option<PathBuf>;

    /// The names in a directory, sorted; none if it cannot be read.
    fn names(&self, directory: &Path) -> Vec<String>;

    /// Why a program must not be started as root, if the hook has more rights than its user.
    fn distrust(&self, path: &Path) -> Option<String>;
}

/// The host that the hook runs on.
#[derive(Debug)]
pub(crate) struct RealHost;

impl Host for RealHost {
    fn look(&self, path: &Path) -> Option<Found> {
        let found = std::fs::metadata(path).ok()?;
        let kind = found.file_type();
        let device = |kind| Found::Device {
            kind,
            major: rustix::fs::major(found.rdev()),
            minor: rustix::fs::minor(found.rdev()),
        };
        Some(match kind {
            _ if kind.is_file() => {
                Found::File { executable: found.permissions().mode() & 0o111 != 0 }
            }
            _ if kind.is_dir() => Found::Directory,
            _ if kind.is_char_device() => device('c'),
            _ if kind.is_block_device() => device('b'),
            _ => Found::Other,
        })
    }

    fn link(&self, path: &Path) -> Option<PathBuf> {
        std::fs::read_link(path).ok()
    }

    fn names(&self, directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    fn distrust(&self, path: &Path) -> Option<String> {
        let said = site::check(path).err()?.to_string();
        Some(said.replace("\nhint: ", ": "))
    }
}

/// A path of the host below another root, with which the node's driver may be somewhere else.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
pub(crate) mod table {
    //! A host in memory.

    use std::collections::BTreeMap;

    use super::{Found, Host, Path, PathBuf};

    #[derive(Debug, Default)]
    pub(crate) struct Table {
        found: BTreeMap<PathBuf, Found>,
        links: BTreeMap<PathBuf, PathBuf>,
    }

    impl Table {
        pub(crate) fn with(mut self, path: &str, found: Found) -> Self {
            self.found.insert(path.into(), found);
            self
        }

        pub(crate) fn linked(mut self, path: &str, target: &str) -> Self {
            self.links.insert(path.into(), target.into());
            self
        }

        pub(crate) fn file(self, path: &str) -> Self {
            self.with(path, Found::File { executable: true })
        }

        pub(crate) fn node(self, path: &str, major: u32, minor: u32) -> Self {
            self.with(path, Found::Device { kind: 'c', major, minor })
        }
    }

    impl Host for Table {
        fn look(&self, path: &Path) -> Option<Found> {
            self.found.get(path).copied()
        }

        fn link(&self, path: &Path) -> Option<PathBuf> {
            self.links.get(path).cloned()
        }

        fn names(&self, directory: &Path) -> Vec<String> {
            let inside = self.found.keys().filter(|path| path.parent() == Some(directory));
            inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
        }

        fn distrust(&self, path: &Path) -> Option<String> {
            path.starts_with("/untrusted").then(|| format!("`{}` is not safe", path.display()))
        }
    }
}
