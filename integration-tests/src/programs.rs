//! The built programs, where every user may execute them.

use std::path::{Path, PathBuf};

/// Names of the programs that a run needs, which lie side by side.
const NAMES: [&str; 4] = ["sarus", "sarus-shim", "sarus-entry", "sarus-fuse"];

/// A directory with the built programs.
#[derive(Debug)]
pub struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Puts the programs that were built with this test into `directory`.
    ///
    /// # Panics
    ///
    /// When they were not: `cargo build --workspace --bins` makes them.
    pub fn install(directory: &Path) -> Self {
        let built = built();
        fs_err::create_dir_all(directory).expect("a directory");
        let names = NAMES.iter().map(|name| (*name).to_owned()).chain(hooks(&built));
        for name in names {
            let (from, to) = (built.join(&name), directory.join(&name));
            assert!(
                from.exists(),
                "there is no {}: cargo build --workspace --bins",
                from.display()
            );
            // A link saves time and cache; it needs both on one file system.
            if fs_err::hard_link(&from, &to).is_err() {
                fs_err::copy(&from, &to).expect("a copy of a program");
            }
        }
        Self { directory: directory.to_owned() }
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of one.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// The programs of hooks, `sarus-hook-NAME`.
fn hooks(built: &Path) -> impl Iterator<Item = String> {
    let entries = fs_err::read_dir(built).expect("a directory").map(|entry| entry.expect("a file"));
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("sarus-hook-") && !name.contains('.'))
}

/// `target/PROFILE`, two levels above the test's program.
fn built() -> PathBuf {
    let program = std::env::current_exe().expect("a path");
    program.parent().and_then(Path::parent).expect("target/PROFILE/deps").to_owned()
}
