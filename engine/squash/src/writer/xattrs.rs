//! Extended attributes: each set once, whoever has it.

use std::collections::HashMap;

use super::error::WriteError;
use super::metadata::MetadataWriter;
use crate::format::{NO_XATTR, XATTR_NAME_MAX, XATTR_PREFIXES, XATTR_VALUE_MAX};
use crate::settings::Compression;
use crate::tree::Xattrs;

/// The sets of an image, and the table of their names and values.
pub(super) struct XattrSets {
    known: HashMap<Xattrs, u32>,
    /// Names and values.
    pub(super) pairs: MetadataWriter,
    /// A descriptor of 16 bytes per set.
    pub(super) sets: Vec<u8>,
}

impl XattrSets {
    pub(super) fn new(compression: Compression) -> Result<Self, WriteError> {
        Ok(Self {
            known: HashMap::new(),
            pairs: MetadataWriter::new(compression)?,
            sets: Vec::new(),
        })
    }

    /// The number of a set, stored now unless it is known; [`NO_XATTR`] for none and for a set
    /// of which squashfs can store nothing.
    pub(super) fn number(&mut self, set: Option<&Xattrs>) -> Result<u32, WriteError> {
        let Some(set) = set.filter(|set| !set.is_empty()) else { return Ok(NO_XATTR) };
        if let Some(&number) = self.known.get(set) {
            return Ok(number);
        }
        let number = self.store(set)?;
        self.known.insert(set.clone(), number);
        Ok(number)
    }

    fn store(&mut self, set: &Xattrs) -> Result<u32, WriteError> {
        let reference = self.pairs.place()?.reference();
        let (mut count, mut size): (u32, u32) = (0, 0);
        for (name, value) in set.iter() {
            let Some((kind, rest)) = storable(name, value) else {
                log::debug!("squashfs cannot store attribute `{}`", name.escape_ascii());
                continue;
            };
            let (name_size, value_size) = (name.len(), value.len());
            let mut pair = Vec::with_capacity(8 + name_size + value_size);
            pair.extend_from_slice(&kind.to_le_bytes());
            pair.extend_from_slice(&u16::try_from(rest.len()).unwrap_or(0).to_le_bytes());
            pair.extend_from_slice(rest);
            pair.extend_from_slice(&u32::try_from(value_size).unwrap_or(0).to_le_bytes());
            pair.extend_from_slice(value);
            self.pairs.append(&pair)?;
            count += 1;
            size = size.saturating_add(u32::try_from(pair.len()).unwrap_or(u32::MAX));
        }
        if count == 0 {
            return Ok(NO_XATTR);
        }
        let number = u32::try_from(self.sets.len() / 16).unwrap_or(NO_XATTR);
        self.sets.extend_from_slice(&reference.to_le_bytes());
        self.sets.extend_from_slice(&count.to_le_bytes());
        self.sets.extend_from_slice(&size.to_le_bytes());
        Ok(number)
    }
}

/// The type on disk and the name without its prefix, for what squashfs and Linux can hold.
fn storable<'a>(name: &'a [u8], value: &[u8]) -> Option<(u16, &'a [u8])> {
    if name.len() > XATTR_NAME_MAX || value.len() > XATTR_VALUE_MAX || name.contains(&0) {
        return None;
    }
    let (kind, rest) = (0..)
        .zip(XATTR_PREFIXES)
        .find_map(|(kind, prefix)| name.strip_prefix(prefix).map(|rest| (kind, rest)))?;
    if rest.is_empty() { None } else { Some((kind, rest)) }
}
