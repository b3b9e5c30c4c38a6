//! An entry's mode, owner, time and extended attributes as an inode has them.

use super::error::shown;
use super::{ContentSink, EntryError, Merger};
use crate::tar::{Entry, EntryType};
use crate::tree::{Metadata, NodeId, Xattrs};

/// Linux's `XATTR_NAME_MAX` and `XATTR_SIZE_MAX`.
const NAME_SIZE_MAX: usize = 255;
const VALUE_SIZE_MAX: usize = 65536;

/// Linux's limit for what `listxattr(2)` returns: names, each with a zero byte.
pub(super) const XATTR_LIST_MAX: usize = 65536;

/// What is charged for an attribute, besides its bytes.
const XATTR_SIZE: u64 = 64;

impl<S: ContentSink> Merger<S> {
    /// What the entry says, for a new node or, a directory, for one that exists.
    pub(super) fn metadata(
        &mut self,
        entry: &Entry,
        existing: Option<NodeId>,
    ) -> Result<Metadata, EntryError> {
        let (uid, gid) = existing.map_or((0, 0), |id| {
            let metadata = &self.tree.node(id).metadata;
            (metadata.uid, metadata.gid)
        });
        // The mask leaves 12 bits.
        let mode = u16::try_from(entry.mode & 0o7777).unwrap_or_default();
        Ok(Metadata {
            mode: if entry.entry_type == EntryType::Symlink { 0o777 } else { mode },
            uid: owner("uid", entry.uid, uid)?,
            gid: owner("gid", entry.gid, gid)?,
            mtime: u32::try_from(entry.mtime.max(0)).unwrap_or(u32::MAX),
            xattrs: self.xattrs(entry)?,
        })
    }

    fn xattrs(&mut self, entry: &Entry) -> Result<Option<Xattrs>, EntryError> {
        let (mut kept, mut listed) = (Vec::new(), 0);
        for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_kept(name, entry)) {
            for (part, length, limit) in
                [("name", name.len(), NAME_SIZE_MAX), ("value", value.len(), VALUE_SIZE_MAX)]
            {
                if length > limit {
                    let name = shown(name);
                    return Err(EntryError::Xattr { name, part, length, limit });
                }
            }
            listed += name.len() + 1;
            kept.push((name.as_slice().into(), value.as_slice().into()));
        }
        if listed > XATTR_LIST_MAX {
            return Err(EntryError::XattrList { length: listed });
        }
        if kept.is_empty() {
            return Ok(None);
        }
        kept.sort_unstable();
        let xattrs: Xattrs = kept.into();
        if let Some(known) = self.xattrs.get(&xattrs) {
            return Ok(Some(known.clone()));
        }
        for (name, value) in xattrs.iter() {
            self.charge(XATTR_SIZE + (name.len() + value.len()) as u64)?;
        }
        self.xattrs.insert(xattrs.clone());
        Ok(Some(xattrs))
    }
}

/// Whether an attribute belongs into an image: squashfs has these three namespaces; SELinux labels
/// are the host's; what overlay file systems keep for themselves would deceive the next one; Linux
/// has user attributes on files and directories only.
fn is_kept(name: &[u8], entry: &Entry) -> bool {
    let is_host = name == b"security.selinux"
        || name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.");
    let takes_user = matches!(entry.entry_type, EntryType::File | EntryType::Directory);
    let in_namespace = |prefix: &[u8]| name.starts_with(prefix) && name.len() > prefix.len();
    let is_stored = in_namespace(b"user.") && takes_user
        || in_namespace(b"trusted.")
        || in_namespace(b"security.");
    if is_host || !is_stored {
        log::debug!("extended attribute `{}` of `{}` left out", shown(name), shown(&entry.path));
    }
    is_stored && !is_host
}

/// Negative numbers are those of old archives, -2 for `nobody`; -1 means "as it is" to `chown(2)`.
fn owner(field: &'static str, given: i64, current: u32) -> Result<u32, EntryError> {
    let id = u32::try_from(given)
        .or_else(|_negative| i32::try_from(given).map(i32::cast_unsigned))
        .map_err(|_outside| EntryError::Id { field, given })?;
    Ok(if id == u32::MAX { current } else { id })
}

/// Major and minor number as `mknod(2)` takes them: 12 and 20 bits.
pub(super) fn device((major, minor): (i64, i64)) -> (u32, u32) {
    let low = |number: i64, mask: i64| u32::try_from(number & mask).unwrap_or_default();
    (low(major, 0xfff), low(minor, 0xf_ffff))
}
