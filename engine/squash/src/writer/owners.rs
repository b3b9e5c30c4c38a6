//! The image's owners and groups by index.

use std::collections::HashMap;

use super::error::WriteError;

/// Most owners and groups in an image: inodes refer to them by 16 bits, and the superblock
/// counts them in as many.
const IDS_MAX: usize = u16::MAX as usize;

/// Owners and groups in order of appearance.
#[derive(Default)]
pub(super) struct Owners {
    indexes: HashMap<u32, u16>,
    pub(super) ids: Vec<u32>,
}

impl Owners {
    pub(super) fn index(&mut self, id: u32) -> Result<u16, WriteError> {
        if let Some(&index) = self.indexes.get(&id) {
            return Ok(index);
        }
        if self.ids.len() == IDS_MAX {
            return Err(WriteError::TooMany { what: "owners and groups", limit: IDS_MAX as u64 });
        }
        let index = u16::try_from(self.ids.len()).unwrap_or(u16::MAX);
        self.ids.push(id);
        self.indexes.insert(id, index);
        Ok(index)
    }
}
