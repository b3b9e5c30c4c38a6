//! The host's dropbear: its programs, the loader that starts them, and all their libraries.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use sarus_hook::Failure;

use crate::elf::{self, Kind};

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
        let file = fs_err::read(&program).map_err(|error| failed().because(error))?;
        match elf::kind(&file) {
            None => return Err(failed().because("it is no program for this machine")),
            Some(Kind::Static) => {}
            Some(Kind::Dynamic(loader)) => {
                let loader = PathBuf::from(loader);
                let listed = list(&loader, &program).map_err(|reason| failed().because(reason))?;
                software.libraries.extend(listed);
                software.loader = Some(loader);
            }
        }
    }
    Ok(software)
}

/// Asks the loader itself which libraries it would load.
fn list(loader: &Path, program: &Path) -> Result<Vec<(OsString, PathBuf)>, String> {
    let mut command = Command::new(loader);
    command.arg("--list").arg(program).env_clear();
    let output = command.output().map_err(|error| format!("`{}`: {error}", loader.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// `NAME => PATH (ADDRESS)`, a line each; what has no path is the kernel's, or the loader.
fn parse(text: &str) -> Result<Vec<(OsString, PathBuf)>, String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((name, place)) = line.trim().split_once(" => ") else { continue };
        let path = place.rsplit_once(" (").map_or(place, |(path, _)| path);
        if !path.starts_with('/') {
            return Err(format!("it needs the library `{name}`, which is missing"));
        }
        let name = Path::new(name).file_name().unwrap_or_default();
        found.push((name.to_owned(), PathBuf::from(path)));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list_is_read() {
        let text = "\tlinux-vdso.so.1 (0x00007f53)\n\tlibz.so.1 => /lib/libz.so.1 (0x00)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00)\n";
        let want = vec![(OsString::from("libz.so.1"), PathBuf::from("/lib/libz.so.1"))];
        assert_eq!(parse(text), Ok(want));
        assert!(parse("libx.so => not found").unwrap_err().contains("`libx.so`"));
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
