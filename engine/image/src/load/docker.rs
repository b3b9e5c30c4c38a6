//! Archives of `docker save`: `manifest.json` names configurations, tags and layers.
//!
//! Layers are tar archives, plain or compressed, or links to those of other images. They have no
//! digest of their own; the configuration's `diff_ids` say what they are uncompressed.

use sarus_oci::{Digest, ImageConfig, Platform, Reference};
use serde::Deserialize;

use super::LoadError;
use super::archived::{
    Archived, ArchivedLayer, CONFIG_MAX, Expected, MANIFEST_MAX, check_platform, verify,
};
use super::files::Place;

/// The list of images.
pub(super) const MANIFEST: &str = "manifest.json";

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Entry {
    fn tags(&self) -> &[String] {
        self.repo_tags.as_deref().unwrap_or_default()
    }
}

/// Whether there is a list of images in Docker's form.
pub(super) fn is_there(place: &Place) -> bool {
    place.has(MANIFEST) && entries(place).is_ok_and(|entries| !entries.is_empty())
}

fn entries(place: &Place) -> Result<Vec<Entry>, LoadError> {
    let bytes = place.read(MANIFEST, MANIFEST_MAX)?;
    serde_json::from_slice(&bytes)
        .map_err(|source| LoadError::Manifest { from: place.from.clone(), source })
}

/// The images of an archive: all, or the one that `wanted` names (a reference, or `@N`).
pub(super) fn images(
    place: &Place,
    wanted: Option<&str>,
    platform: &Platform,
) -> Result<Vec<Archived>, LoadError> {
    let mut entries = entries(place)?;
    if let Some(wanted) = wanted {
        let found = entries.iter().enumerate().position(|(number, entry)| {
            wanted == format!("@{number}") || entry.tags().iter().any(|tag| is_same(tag, wanted))
        });
        let Some(found) = found else {
            let names = entries.iter().flat_map(Entry::tags).cloned().collect();
            let (from, wanted) = (place.from.clone(), wanted.to_owned());
            return Err(LoadError::NoSuchImage { from, wanted, names });
        };
        let mut entry = entries.swap_remove(found);
        if !wanted.starts_with('@') {
            entry.repo_tags = Some(vec![wanted.to_owned()]);
        }
        entries = vec![entry];
    }
    entries.into_iter().map(|entry| image(place, entry, platform)).collect()
}

/// Whether two names mean the same when completed.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    one == other
        || matches!((Reference::parse(one), Reference::parse(other)), (Ok(a), Ok(b)) if a == b)
}

fn image(place: &Place, entry: Entry, platform: &Platform) -> Result<Archived, LoadError> {
    let bytes = place.read(&entry.config, CONFIG_MAX)?;
    let config_digest = Digest::sha256_of(&bytes);
    // Its name is its digest, `HEX.json` or `blobs/sha256/HEX`, where it looks like one.
    let stem = entry.config.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    if let Ok(named) = Digest::parse(&format!("sha256:{stem}")) {
        verify(&entry.config, &named, &bytes)?;
    }
    let config = ImageConfig::parse(&bytes).map_err(|source| LoadError::Document {
        from: place.from.clone(),
        member: entry.config.clone(),
        source,
    })?;
    check_platform((&place.from, &entry.config), &config, platform)?;
    let layers = entry.layers.clone().unwrap_or_default();
    if layers.len() != config.diff_ids.len() {
        let (got, expected) = (layers.len(), config.diff_ids.len());
        let what = format!(
            "`{MANIFEST}` has {got} layers for `{}`, whose `diff_ids` are {expected}",
            entry.config
        );
        return Err(LoadError::Inconsistent { from: place.from.clone(), what });
    }
    let layers = layers.iter().zip(&config.diff_ids).map(|(name, diff_id)| {
        let section = place.find(name)?;
        Ok(ArchivedLayer { section, expected: Expected::DiffId(diff_id.clone()) })
    });
    let layers = layers.collect::<Result<_, LoadError>>()?;
    // Docker always writes a tag; a name that has none is one all the same.
    let completed = |name: String| match name.contains([':', '/']) {
        true => name,
        false => format!("{name}:{}", sarus_oci::DEFAULT_TAG),
    };
    let names = entry.repo_tags.unwrap_or_default().into_iter().map(completed).collect();
    Ok(Archived { names, digest: None, config_bytes: bytes, config, config_digest, layers })
}
