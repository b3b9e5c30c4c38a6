//! Whiteouts: entries that take away what older layers have.
//!
//! OCI image specification, "Layer Filesystem Changeset", "Whiteouts". The layer's own entries
//! survive, wherever the whiteout stands among them. Other names with the prefix, such as AUFS'
//! `.wh..wh.plnk`, are whiteouts of names that cannot exist, and never reach the image.

use super::path::Place;
use super::{ContentSink, EntryError, Merger};
use crate::tree::{Kind, NodeId};

/// Names that begin so are whiteouts, whatever the entry's type.
pub(super) const PREFIX: &[u8] = b".wh.";

/// The rest of the name of an opaque marker: the directory's older entries vanish.
const OPAQUE: &[u8] = b".wh..opq";

impl<S: ContentSink> Merger<S> {
    /// Applies the whiteout of `name` in a directory; nothing happens where nothing is.
    pub(super) fn white_out(&mut self, place: &Place, name: &[u8]) -> Result<(), EntryError> {
        if matches!(name, b"" | b"." | b"..") {
            return Err(EntryError::Whiteout { name: format!("`{}`", name.escape_ascii()) });
        }
        let Some(parent) = place.directory(&self.tree) else { return Ok(()) };
        if name == OPAQUE {
            self.remove_older(parent)?;
        } else if let Some(id) = self.child(parent, name) {
            if self.is_touched(parent, name, id) {
                self.remove_older(id)?;
            } else {
                self.remove(parent, name);
            }
        }
        Ok(())
    }

    /// Removes what the current layer has not touched below a directory.
    fn remove_older(&mut self, top: NodeId) -> Result<(), EntryError> {
        let mut pending = vec![top];
        while let Some(directory) = pending.pop() {
            let Kind::Directory(names) = &mut self.tree.node_mut(directory).kind else { continue };
            let mut names = std::mem::take(names);
            self.count_steps(names.len() as u64)?;
            names.retain(|name, id| self.is_touched(directory, name, id));
            pending.extend(names.iter().map(|(_, id)| id));
            self.tree.node_mut(directory).kind = Kind::Directory(names);
        }
        Ok(())
    }

    fn is_touched(&self, parent: NodeId, name: &[u8], id: NodeId) -> bool {
        self.touched[id.0 as usize] == self.layer
            || !self.linked.is_empty() && self.linked.contains(&(parent, name.into()))
    }
}
