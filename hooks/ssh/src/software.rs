//! The host's dropbear: its programs, the loader that starts them, and all their libraries.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sarus_hook::elf::{Elf, Format};
use sarus_hook::libraries::Loader;
use sarus_hook::{Failure, Root};

/// Where the distributions have dropbear.
const DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// What is shown to the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Software {
    /// The server, `dropbear`.
    pub(crate) server: PathBuf,
    /// The client, `dbclient`.
    pub(crate) client: PathBuf,
    /// The loader of both; none for static programs.
    pub(crate) loader: Option<PathBuf>,
    /// Libraries by name.
    pub(crate) libraries: BTreeMap<OsString, PathBuf>,
}

/// Finds a program of dropbear's: in `DROPBEAR_DIR` where it is set, else where distributions have it.
///
/// # Errors
///
/// Where there is none.
pub(crate) fn program(name: &str, directory: Option<&Path>) -> Result<PathBuf, Failure> {
    let places: Vec<PathBuf> = match directory {
        Some(directory) => ["bin", "sbin", ""].map(|sub| directory.join(sub)).to_vec(),
        None => DIRECTORIES.map(PathBuf::from).to_vec(),
    };
    let found = places.iter().map(|place| place.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        let looked: Vec<String> =
            places.iter().map(|place| format!("`{}`", place.display())).collect();
        Failure::new(format!("cannot find dropbear's program `{name}` on this node"))
            .because(format!("looked in {}", looked.join(", ")))
            .hint("install dropbear (Debian: `dropbear-bin`), or set `DROPBEAR_DIR` in the hook's file")
    })
}

/// Finds server and client with what they need.
///
/// # Errors
///
/// Where a program or a library is missing.
pub(crate) fn find(directory: Option<&Path>) -> Result<Software, Failure> {
    let (server, client) = (program("dropbear", directory)?, program("dbclient", directory)?);
    let mut software = Software { server, client, loader: None, libraries: BTreeMap::new() };
    for program in [software.server.clone(), software.client.clone()] {
        let failed = || Failure::new(format!("cannot use `{}`", program.display()));
        let file = File::open(&program).map_err(|error| failed().because(error))?;
        let elf = Elf::read(file).map_err(|reason| failed().because(reason))?;
        let Some(loader) = elf.interpreter else { continue };
        let libraries = needed(&program, elf.format).map_err(|reason| failed().because(reason))?;
        let loader = PathBuf::from(loader);
        let others = libraries.into_iter().filter(|(name, _)| Some(&**name) != loader.file_name());
        software.libraries.extend(others);
        software.loader = Some(loader);
    }
    Ok(software)
}

/// The libraries that the host's loader would load with a program, by name; in words, which one is
/// missing.
fn needed(program: &Path, format: Format) -> Result<Vec<(OsString, PathBuf)>, String> {
    let slash = File::open("/").map_err(|error| error.to_string())?;
    let closure = Loader::new(Root(slash.as_fd()), format, "").closure(&[program.to_owned()]);
    if let Some(missing) = closure.missing.first() {
        return Err(format!("it needs the library `{}`, which is missing", missing.name));
    }
    let libraries = closure.objects.into_iter().filter(|object| object.by.is_some());
    Ok(libraries.map(|object| (object.name.into(), object.found.path)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_program_needs_is_what_it_has_loaded() {
        let own = Elf::read(File::open("/proc/self/exe").unwrap()).unwrap();
        let path = std::env::current_exe().unwrap();
        let found = needed(&path, own.format).unwrap();
        let maps = fs_err::read_to_string("/proc/self/maps").unwrap();
        assert_eq!(found.is_empty(), own.interpreter.is_none());
        for (name, path) in found {
            assert!(maps.contains(&*name.to_string_lossy()), "{name:?} at {}", path.display());
        }
    }

    #[test]
    fn a_missing_program_is_named_with_the_places() {
        let folder = tempfile::tempdir().unwrap();
        let failure = program("dropbear", Some(folder.path())).unwrap_err().to_string();
        assert!(failure.contains("`dropbear`") && failure.contains("DROPBEAR_DIR"), "{failure}");
        std::fs::create_dir(folder.path().join("sbin")).unwrap();
        let path = folder.path().join("sbin/dropbear");
        fs_err::write(&path, "").unwrap();
        assert_eq!(program("dropbear", Some(folder.path())).unwrap(), path);
    }
}
