//! The C library of an image. Read in a process without rights.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sarus_hook::Root;
use sarus_hook::elf::Format;
use sarus_hook::libraries::{Loader, default_directories, is_of_libc, list, real};
use serde::{Deserialize, Serialize};

use crate::LIBC;

/// Most files of one C library.
const FILES_MAX: usize = 256;

/// A part of the C library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    /// The name by which it is asked for.
    pub(crate) soname: String,
    /// Where it is, without links.
    pub(crate) path: PathBuf,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Whether musl's loader is there.
    pub(crate) is_musl: bool,
    /// All parts of the GNU C library.
    pub(crate) files: Vec<File>,
    /// The versions of symbols that it defines.
    pub(crate) versions: BTreeSet<String>,
}

/// Looks for the C library of a format.
pub(crate) fn look(root: Root<'_>, format: Format, library_path: &str) -> Image {
    let loader = Loader::new(root, format, library_path);
    let cached = loader.cached().filter(|(name, _)| is_of_libc(name));
    let mut paths: Vec<PathBuf> = cached.flat_map(|(_, paths)| paths.to_vec()).collect();
    for directory in default_directories() {
        let names = list(root, Path::new(&directory)).into_iter();
        paths.extend(
            names.filter(|name| is_of_libc(name)).map(|name| Path::new(&directory).join(name)),
        );
    }
    let mut files = BTreeMap::new();
    for path in paths.into_iter().take(FILES_MAX) {
        let Some(elf) = loader.open(&path) else { continue };
        if let Some(soname) = elf.soname.clone().filter(|name| is_of_libc(name)) {
            files.insert(real(root, &path), soname);
        }
    }
    let own = loader.find(LIBC, &[]);
    Image {
        is_musl: list(root, Path::new("/lib")).iter().any(|name| name.starts_with("ld-musl-")),
        files: files.into_iter().map(|(path, soname)| File { soname, path }).collect(),
        versions: own.map(|found| found.elf.versions_defined.clone()).unwrap_or_default(),
    }
}
