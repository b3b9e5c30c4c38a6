//! Whether only root can change what a path leads to.
//!
//! The privileged shim asks this of the configuration, of hooks and of programs before it reads or
//! starts them. Once every directory from `/` down to a file is root's alone, nobody else can
//! exchange it afterwards, so that no descriptor needs to be kept between check and use.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::error::ConfigError;

/// Longest chain of symbolic links followed; the kernel's own limit.
const SYMLINK_MAX: usize = 40;

/// Checks that `path`, an absolute one, and every directory above it belong to root and that
/// neither group nor others can write to them. A symbolic link must be root's, and what it leads to
/// is checked in the same way. Access control lists are covered: the rights that they give at most
/// show as those of the group.
///
/// # Errors
///
/// [`ConfigError::Untrusted`] names the first offender from the top;
/// [`ConfigError::Unchecked`] where something is missing or cannot be looked at.
pub fn check_trusted(path: &Path) -> Result<(), ConfigError> {
    walk(path, &|path| {
        let metadata = fs::symlink_metadata(path)?;
        let link = if metadata.is_symlink() { Some(fs::read_link(path)?) } else { None };
        Ok(Entry { owner: metadata.uid(), mode: metadata.mode(), link })
    })
}

/// What the file system says of one path.
struct Entry {
    owner: u32,
    mode: u32,
    /// The target, of a symbolic link.
    link: Option<PathBuf>,
}

fn walk(path: &Path, look: &dyn Fn(&Path) -> io::Result<Entry>) -> Result<(), ConfigError> {
    let unchecked = |source| ConfigError::Unchecked { path: path.to_owned(), source };
    if !path.is_absolute() {
        return Err(unchecked(io::Error::new(io::ErrorKind::InvalidInput, "not an absolute path")));
    }
    let mut rest: VecDeque<OsString> = components(path).collect();
    let mut links = 0;
    // Resolved so far: no symbolic link in it, so that `..` is its parent.
    let mut place = PathBuf::from("/");
    judge(path, &place, &look(&place).map_err(unchecked)?)?;
    while let Some(name) = rest.pop_front() {
        if name == OsStr::new("..") {
            place.pop();
            continue;
        }
        place.push(name);
        let entry = look(&place)
            .map_err(|source| ConfigError::Unchecked { path: place.clone(), source })?;
        judge(path, &place, &entry)?;
        let Some(target) = entry.link else { continue };
        links += 1;
        if links > SYMLINK_MAX {
            return Err(unchecked(io::Error::other("too many levels of symbolic links")));
        }
        if target.is_absolute() {
            place = PathBuf::from("/");
        } else {
            place.pop();
        }
        rest = components(&target).chain(rest).collect();
    }
    Ok(())
}

/// The names and `..` of a path.
fn components(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

fn judge(path: &Path, place: &Path, entry: &Entry) -> Result<(), ConfigError> {
    let is_link = entry.link.is_some();
    let shown = place.display();
    let (problem, remedy) = if entry.owner != 0 {
        let option = if is_link { "-h " } else { "" };
        (
            format!("belongs to user {}, expected root", entry.owner),
            format!("run `chown {option}root {shown}` as root"),
        )
    } else if !is_link && entry.mode & 0o022 != 0 {
        // Directories like `/tmp` are meant to be everybody's.
        let remedy = if entry.mode & 0o1000 != 0 {
            format!("move it out of `{shown}`")
        } else {
            format!("run `chmod go-w {shown}` as root")
        };
        let mode = entry.mode & 0o7777;
        (format!("has mode {mode:04o}, expected no write permission for group and others"), remedy)
    } else {
        return Ok(());
    };
    let (path, offender) = (path.to_owned(), place.to_owned());
    Err(ConfigError::Untrusted { path, offender, problem, remedy })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system in memory: path, owner, mode, target of a link.
    fn check(path: &str, entries: &[(&str, u32, u32, Option<&str>)]) -> String {
        let look = |path: &Path| {
            let found = entries.iter().find(|(name, ..)| Path::new(name) == path);
            let (_, owner, mode, link) = found.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            Ok(Entry { owner: *owner, mode: *mode, link: link.map(PathBuf::from) })
        };
        match walk(Path::new(path), &look) {
            Ok(()) => "trusted".to_owned(),
            Err(error) => format!("{error}; {}", error.hint().unwrap_or_default()),
        }
    }

    #[test]
    fn only_what_root_alone_can_change_is_trusted() {
        let why = ": with privilege, Sarus uses only what root alone can change";
        let tree = [
            ("/", 0, 0o755, None),
            ("/etc", 0, 0o755, None),
            ("/etc/good", 0, 0o644, None),
            ("/etc/alien", 1000, 0o644, None),
            ("/etc/group", 0, 0o664, None),
            ("/tmp", 0, 0o1777, None),
            ("/tmp/file", 0, 0o644, None),
            ("/etc/to-good", 0, 0o777, Some("good")),
            ("/etc/to-tmp", 0, 0o777, Some("../tmp/file")),
            ("/etc/absolute", 0, 0o777, Some("/etc/to-good")),
            ("/etc/loop", 0, 0o777, Some("loop")),
            ("/etc/alien-link", 1000, 0o777, Some("good")),
        ];
        let cases = [
            ("/etc/good", "trusted".to_owned()),
            ("/etc/../etc/./good", "trusted".to_owned()),
            ("/etc/to-good", "trusted".to_owned()),
            ("/etc/absolute", "trusted".to_owned()),
            (
                "/etc/alien",
                format!(
                    "`/etc/alien` is not safe: `/etc/alien` belongs to user 1000, expected root; run `chown root /etc/alien` as root{why}"
                ),
            ),
            (
                "/etc/alien-link",
                format!(
                    "`/etc/alien-link` is not safe: `/etc/alien-link` belongs to user 1000, expected root; run `chown -h root /etc/alien-link` as root{why}"
                ),
            ),
            (
                "/etc/group",
                format!(
                    "`/etc/group` is not safe: `/etc/group` has mode 0664, expected no write permission for group and others; run `chmod go-w /etc/group` as root{why}"
                ),
            ),
            (
                "/etc/to-tmp",
                format!(
                    "`/etc/to-tmp` is not safe: `/tmp` has mode 1777, expected no write permission for group and others; move it out of `/tmp`{why}"
                ),
            ),
            ("/etc/loop", "cannot check who may change `/etc/loop`; ".to_owned()),
            ("/etc/none", "cannot check who may change `/etc/none`; ".to_owned()),
            ("etc/good", "cannot check who may change `etc/good`; ".to_owned()),
        ];
        for (path, want) in cases {
            assert_eq!(check(path, &tree), want, "given {path}");
        }
    }
}
