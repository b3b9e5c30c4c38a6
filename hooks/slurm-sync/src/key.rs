//! The user's key, by which the leaders of a step's nodes know each other: one small file in the
//! user's directory on the shared file system, made by the first step over several nodes and
//! read once by each node of every later one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use sarus_hook::Failure;

use crate::wire::{self, Bytes};

/// Where random bytes come from.
const RANDOM: &str = "/dev/urandom";

/// The file's name in the hook's directory.
const FILE: &str = "key";

/// Reads the key, or makes it where there is none. Whoever makes it at the same time on another
/// node gets the same.
///
/// # Errors
///
/// Where the directory or the file cannot be made or read, or others may read it.
pub(crate) fn load(directory: &Path) -> Result<Bytes, Failure> {
    let path = directory.join(FILE);
    let failed = || {
        let what = "cannot get the key by which the nodes of a step know each other";
        Failure::new(format!("{what}, `{}`", path.display())).hint(
            "`HOOK_BASE_DIR` in the hook's file names a directory that all nodes share, with a \
             directory for each user",
        )
    };
    match read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        read => return read.map_err(|error| failed().because(error)),
    }
    make(directory, &path).and_then(|()| read(&path)).map_err(|error| failed().because(error))
}

fn read(path: &Path) -> std::io::Result<Bytes> {
    let file = File::open(path)?;
    let data = file.metadata()?;
    if data.mode() & 0o077 != 0 || data.uid() != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other("it is not the user's alone (mode 0600)"));
    }
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text)?;
    wire::unhex(text.trim_end()).ok_or_else(|| std::io::Error::other("it holds no key"))
}

/// Writes aside and links: the file never exists without its content, and the first one stays.
fn make(directory: &Path, path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let bytes = random()?;
    // Tasks of several nodes have one directory.
    let aside = directory.join(format!(".key.{}", &wire::hex(&random()?)[..16]));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    let linked = file
        .write_all(format!("{}\n", wire::hex(&bytes)).as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&aside, path));
    std::fs::remove_file(&aside)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random() -> std::io::Result<Bytes> {
    let mut bytes = Bytes::default();
    File::open(RANDOM)?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("a/b");
        let key = load(&directory).unwrap();
        assert_eq!(load(&directory).unwrap(), key);
        let names: Vec<_> = fs_err::read_dir(&directory).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let path = directory.join(FILE);
        assert_eq!(fs_err::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(load(&directory).unwrap_err().to_string().contains("alone"));
    }

    #[test]
    fn a_broken_key_is_an_error_and_stays() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join(FILE);
        fs_err::write(&path, "x\n").unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load(base.path()).unwrap_err().to_string().contains("holds no key"));
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "x\n");
    }
}
