//! What a user may want to free: caches, leftovers, images that are not needed any more.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::disk::{list, remove_file, remove_tree};
use crate::layout::{PARTIAL, SQUASHFS, parse_digest_name};
use crate::owner::age;
use crate::{Owner, Store, StoreError};

/// Why something can be freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A verified blob of the cache: pulls of other images may fetch it again.
    Blob,
    /// The beginning of a blob: the next pull may fetch it again from the start.
    Partial,
    /// What a killed process was writing.
    Temporary,
    /// An image that lost its last name longer ago than the grace period.
    Image,
}

/// Something that can be freed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prunable {
    /// What it is.
    pub kind: Kind,
    /// The digest, or the temporary's file name.
    pub name: String,
    /// Bytes in its files.
    pub bytes: u64,
}

/// What was freed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// Each thing, by kind and name.
    pub items: Vec<Prunable>,
    /// A pull is going on: verified blobs, which it may be reading, are left alone.
    pub pulling: bool,
}

impl Pruned {
    /// Bytes of all.
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.bytes).sum()
    }
}

impl Store {
    /// Frees the blob cache, what killed processes left, and images without a name whose `grace`
    /// has passed. What others write or read just now is left alone. With `dry_run` nothing is
    /// changed, and the answer is what would be freed.
    ///
    /// # Errors
    ///
    /// The store is read-only; the first file that cannot be read or removed, what was freed
    /// before stays freed.
    pub fn prune(&self, grace: Duration, dry_run: bool) -> Result<Pruned, StoreError> {
        self.check_writable()?;
        let me = Owner::current();
        let mut pruned = Pruned { items: Vec::new(), pulling: self.is_in_use()? };
        for path in self.left_behind(&me)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            pruned.items.push(Prunable { kind: Kind::Temporary, name, bytes: tree_bytes(&path) });
            if !dry_run {
                remove_tree(&path)?;
            }
        }
        self.prune_blobs(&me, &mut pruned, dry_run)?;
        let mut survey = self.survey()?;
        for (digest, mark) in &survey.images {
            if survey.is_over(digest, *mark, grace) {
                let squashfs = self.image_directory(digest).join(SQUASHFS);
                let (name, bytes) = (digest.to_string(), tree_bytes(&squashfs));
                pruned.items.push(Prunable { kind: Kind::Image, name, bytes });
            }
        }
        if !dry_run {
            self.sweep_leases(&me)?;
            self.collect(&mut survey, grace)?;
        }
        pruned.items.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        Ok(pruned)
    }

    fn prune_blobs(
        &self,
        me: &Owner,
        pruned: &mut Pruned,
        dry_run: bool,
    ) -> Result<(), StoreError> {
        let directory = self.blobs_directory();
        for file in list(&directory)? {
            let path = directory.join(&file);
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            // What is no file no store made.
            if metadata.is_dir() {
                continue;
            }
            let (stem, label) = file
                .split_once(',')
                .map_or((file.as_str(), None), |(stem, label)| (stem, Some(label)));
            let (stem, kind) = match stem.strip_suffix(PARTIAL) {
                Some(stem) => (stem, Kind::Partial),
                None => (stem, Kind::Blob),
            };
            let Some(digest) = parse_digest_name(stem) else { continue };
            let age = age(metadata.modified().unwrap_or(std::time::UNIX_EPOCH));
            let is_free = match (kind, label) {
                (Kind::Blob, _) => !pruned.pulling,
                (_, None) => true,
                (_, Some(label)) => Owner::parse(label).is_some_and(|owner| owner.is_gone(me, age)),
            };
            if !is_free {
                continue;
            }
            pruned.items.push(Prunable { kind, name: digest.to_string(), bytes: metadata.len() });
            if !dry_run {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// Bytes of a file, or of the files in a directory; what cannot be read counts nothing.
fn tree_bytes(path: &Path) -> u64 {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}
