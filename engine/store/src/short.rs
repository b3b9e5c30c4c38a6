//! What short names mean here: `img` may be any registry's, as registries.conf said when it was pulled.
//!
//! Names are kept in full; a record leads from a short one to the full one, so that a run needs no
//! configuration to find what was pulled. Without a record a short name is docker.io's.

use std::collections::BTreeSet;
use std::path::PathBuf;

use sarus_oci::{Platform, Reference};
use serde::{Deserialize, Serialize};

use crate::disk::{HasVersion, list, parse, read_small, remove_file};
use crate::layout::{SHORT_NAMES, short_name_file};
use crate::read::NAME_BYTES_MAX;
use crate::{METADATA_VERSION, Store, StoreError};

/// The content of a short name's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShortName {
    /// [`METADATA_VERSION`] of the writer.
    version: u32,
    /// What it means.
    reference: Reference,
    /// On which platform.
    platform: Platform,
}

impl HasVersion for ShortName {
    fn version(&self) -> u32 {
        self.version
    }
}

/// The short names that mean another name here than docker.io's.
#[derive(Debug, Clone, Default)]
pub struct ShortNames(BTreeSet<String>);

impl ShortNames {
    /// Whether `reference`, as it was given, is one of them on `platform`.
    pub fn contains(&self, reference: &Reference, platform: &Platform) -> bool {
        short_name_file(reference, platform).is_some_and(|file| self.0.contains(&file))
    }
}

impl Store {
    /// The short names that are not docker.io's here.
    ///
    /// # Errors
    ///
    /// A directory that cannot be read.
    pub fn short_names(&self) -> Result<ShortNames, StoreError> {
        Ok(ShortNames(list(&self.root().join(SHORT_NAMES))?.into_iter().collect()))
    }

    /// Makes the short name `asked` mean `found` on `platform`, from now on. Nothing where `asked`
    /// is not short; where both are one name, whatever it meant before is forgotten.
    ///
    /// # Errors
    ///
    /// The store is read-only; a file that cannot be written.
    pub fn remember_short(
        &self,
        (asked, platform): (&Reference, &Platform),
        found: &Reference,
    ) -> Result<(), StoreError> {
        self.check_writable()?;
        let Some(path) = self.short_name_path(asked, platform) else { return Ok(()) };
        if asked == found {
            return remove_file(&path);
        }
        let (reference, platform) = (found.clone(), platform.clone());
        self.write_json(&path, &ShortName { version: METADATA_VERSION, reference, platform })
    }

    /// The full name that `reference` means: itself, unless it is short and was pulled from elsewhere
    /// than docker.io.
    pub(crate) fn in_full(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Reference, StoreError> {
        let Some(path) = self.short_name_path(reference, platform) else {
            return Ok(reference.clone());
        };
        match read_small(&path, NAME_BYTES_MAX)? {
            Some(json) => Ok(parse::<ShortName>(&path, &json)?.reference),
            None => Ok(reference.clone()),
        }
    }

    /// Removes the records whose full name is gone. One that cannot be read is another version's or
    /// another user's, and stays; a damaged one goes.
    pub(crate) fn forget_short_names(&self) -> Result<(), StoreError> {
        let directory = self.root().join(SHORT_NAMES);
        for file in list(&directory)? {
            let path = directory.join(file);
            let is_over = match read_small(&path, NAME_BYTES_MAX) {
                Ok(Some(json)) => match parse::<ShortName>(&path, &json) {
                    Ok(short) => !self.name_path(&short.reference, &short.platform).exists(),
                    Err(error) => error.is_damage(),
                },
                Ok(None) | Err(_) => false,
            };
            if is_over {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn short_name_path(&self, reference: &Reference, platform: &Platform) -> Option<PathBuf> {
        Some(self.root().join(SHORT_NAMES).join(short_name_file(reference, platform)?))
    }
}
