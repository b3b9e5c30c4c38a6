//! Files of the site's that a hook reads: settings, specifications, lists.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::Failure;
use crate::account::is_machines_root;

/// The largest of them, in bytes.
pub const FILE_SIZE_MAX: u64 = 4 << 20;

/// Refuses a file or program which somebody but root can change, or put another in the place of,
/// where the hook is the machine's root: it would do for the writer what root may. Without privilege
/// everything passes.
///
/// # Errors
///
/// Names the path that is not safe, and what to do.
pub fn check(path: &Path) -> Result<(), Failure> {
    if !is_machines_root() {
        return Ok(());
    }
    sarus_config::check_trusted(path).map_err(|error| {
        let hint = error.hint();
        let failure = Failure::new(error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// Reads a file after [`check`].
///
/// # Errors
///
/// As [`check`]; where it cannot be read, is no text, or is larger than [`FILE_SIZE_MAX`].
pub fn read(path: &Path) -> Result<String, Failure> {
    check(path)?;
    let failed = || Failure::new(format!("cannot read `{}`", path.display()));
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed().because(error))?;
    file.take(FILE_SIZE_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed().because(error))?;
    if text.len() as u64 > FILE_SIZE_MAX {
        return Err(failed().because(format!("it has more than {FILE_SIZE_MAX} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that nobody but its owner, and root's own above it, can change.
    fn directory() -> tempfile::TempDir {
        match is_machines_root() {
            true => tempfile::tempdir_in("/run").unwrap(),
            false => tempfile::tempdir().unwrap(),
        }
    }

    #[test]
    fn root_believes_no_file_that_others_can_change() {
        let directory = directory();
        let path = directory.path().join("file");
        fs_err::write(&path, "text").unwrap();
        assert_eq!(read(&path).unwrap(), "text");
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        let read = read(&path);
        match is_machines_root() {
            true => assert!(read.unwrap_err().to_string().contains("is not safe")),
            false => assert_eq!(read.unwrap(), "text"),
        }
    }

    #[test]
    fn no_more_is_read_than_the_limit() {
        let directory = directory();
        let path = directory.path().join("file");
        let large = File::create(&path).unwrap();
        large.set_len(FILE_SIZE_MAX + 1).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("more than"));
    }
}
