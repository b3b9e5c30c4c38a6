//! Paths, resolved as a process in a container would: symbolic links never lead out.

use super::error::shown;
use super::{BrowseError, LINKS_MAX, PATH_SIZE_MAX, join};
use crate::reader::{DirectoryPlace, ImageReader, Inode, InodeKind, InodeReference};

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The path without symbolic links, absolute.
    pub path: Vec<u8>,
    /// Where the inode is.
    pub reference: InodeReference,
    /// The inode.
    pub inode: Inode,
}

/// What becomes of a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// It is followed, as `stat(2)` does.
    Follow,
    /// It is what was asked for, as with `lstat(2)`, unless a slash is behind it.
    Keep,
}

/// Finds what `path` leads to; a relative one begins at the root. `..` does not lead above it.
///
/// # Errors
///
/// [`BrowseError`]
pub fn find(reader: &mut ImageReader<'_>, path: &[u8], last: Last) -> Result<Found, BrowseError> {
    let root = reader.image_root();
    let inode = reader.inode(root).map_err(BrowseError::read(b"/"))?;
    // The directories from the root down to where the search is, and at last what is no directory.
    let mut above = vec![Found { path: b"/".to_vec(), reference: root, inode }];
    let mut pending = components(path);
    let (mut links, mut length) = (0, path.len());
    while let Some(name) = pending.pop() {
        let Some(here) = above.last() else { break };
        let InodeKind::Directory(place) = &here.inode.kind else {
            return Err(BrowseError::NotADirectory { path: shown(&here.path) });
        };
        match &*name {
            b"." => continue,
            b".." => {
                if above.len() > 1 {
                    above.pop();
                }
                continue;
            }
            _ => {}
        }
        let there = join(&here.path, &name);
        if there.len() > PATH_SIZE_MAX || length > PATH_SIZE_MAX * LINKS_MAX {
            return Err(BrowseError::PathSize { path: shown(&there) });
        }
        let reference = entry(reader, place, &name)
            .map_err(BrowseError::read(&here.path))?
            .ok_or_else(|| BrowseError::Missing { path: shown(&there) })?;
        let inode = reader.inode(reference).map_err(BrowseError::read(&there))?;
        match &inode.kind {
            InodeKind::Symlink(target) if last == Last::Follow || !pending.is_empty() => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(BrowseError::Links { path: shown(path) });
                }
                length += target.len();
                if target.starts_with(b"/") {
                    above.truncate(1);
                }
                pending.extend(components(target));
            }
            _ => above.push(Found { path: there, reference, inode }),
        }
    }
    above.pop().ok_or_else(|| BrowseError::Missing { path: shown(path) })
}

/// The components, last first; behind a slash at the end is a `.`, so that a directory is asked
/// for.
fn components(path: &[u8]) -> Vec<Box<[u8]>> {
    let mut all: Vec<Box<[u8]>> = Vec::new();
    for name in path.split(|&byte| byte == b'/').rev() {
        match name {
            b"" if all.is_empty() && path.ends_with(b"/") => all.push(b"."[..].into()),
            b"" => {}
            name => all.push(name.into()),
        }
    }
    all
}

/// The inode that a directory has under a name.
fn entry(
    reader: &mut ImageReader<'_>,
    place: &DirectoryPlace,
    name: &[u8],
) -> Result<Option<InodeReference>, crate::reader::ReadError> {
    let mut entries = reader.entries(place);
    while let Some(entry) = entries.next(reader)? {
        if entry.name == name {
            return Ok(Some(entry.inode));
        }
    }
    Ok(None)
}
