//! OCI image layouts, in a directory or a tar archive: `index.json` leads to manifests, and those
//! to blobs, each by its digest. Specification: OCI image-spec `image-layout.md`.

use std::collections::BTreeMap;

use sarus_oci::manifest::{Descriptor, Document, Index, Manifest, OCI_INDEX};
use sarus_oci::{Digest, DocumentError, ImageConfig, Platform};

use super::LoadError;
use super::archived::{
    Archived, ArchivedLayer, CONFIG_MAX, Expected, MANIFEST_MAX, check_platform, verify,
};
use super::docker::is_same;
use super::files::Place;

/// Marks a layout.
pub(super) const MARK: &str = "oci-layout";
/// The list of images.
pub(super) const INDEX: &str = "index.json";
/// Deepest nesting of indexes.
const NESTING_MAX: usize = 4;
/// Annotation with a tag, or with a whole name.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with a whole name, by containerd and BuildKit.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Whether this is a layout.
pub(super) fn is_there(place: &Place) -> bool {
    place.has(MARK) && place.has(INDEX)
}

/// The entries that have one name, or none.
type Group = (Option<String>, Vec<Descriptor>);

/// A manifest that was found, with its digest.
type Selected = (Digest, Manifest);

/// The images for a platform: all that have a name, and if none has, the one that there is; or
/// the one that `wanted` names (a tag, a name, or `@N`).
pub(super) fn images(
    place: &Place,
    wanted: Option<&str>,
    platform: &Platform,
) -> Result<Vec<Archived>, LoadError> {
    let bytes = place.read(INDEX, MANIFEST_MAX)?;
    let Document::Index(index) = parse(place, INDEX, (&bytes, Some(OCI_INDEX)))? else {
        return Err(document(place, INDEX, DocumentError::Ambiguous { what: "no index" }));
    };
    let mut found: Vec<(Vec<String>, Selected)> = Vec::new();
    for (name, entries) in groups(place, index, wanted)? {
        let selected = select(place, &Index { manifests: entries }, (INDEX, 0), platform)?;
        match found.iter_mut().find(|(_, (digest, _))| *digest == selected.0) {
            Some((names, _)) => names.extend(name),
            None => found.push((name.into_iter().collect(), selected)),
        }
    }
    found.into_iter().map(|(names, selected)| image(place, names, selected)).collect()
}

/// The entries by name, in order.
fn groups(place: &Place, index: Index, wanted: Option<&str>) -> Result<Vec<Group>, LoadError> {
    let name = |entry: &Descriptor| {
        let annotation = |key| entry.annotations.get(key).filter(|name| !name.is_empty());
        annotation(IMAGE_NAME).or_else(|| annotation(REF_NAME)).cloned()
    };
    let mut names: Vec<String> = Vec::new();
    let mut by_name: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
    for (number, entry) in index.manifests.into_iter().enumerate() {
        let name = name(&entry);
        let is_tag = |wanted: &str| entry.annotations.get(REF_NAME).is_some_and(|it| it == wanted);
        let is_wanted = wanted.is_none_or(|wanted| {
            wanted == format!("@{number}")
                || is_tag(wanted)
                || name.as_ref().is_some_and(|name| is_same(name, wanted))
        });
        if let Some(name) = name.as_ref().filter(|name| !names.contains(name)) {
            names.push(name.clone());
        }
        if is_wanted {
            by_name.entry(name).or_default().push(entry);
        }
    }
    if let (true, Some(wanted)) = (by_name.is_empty(), wanted) {
        let (from, wanted) = (place.from.clone(), wanted.to_owned());
        return Err(LoadError::NoSuchImage { from, wanted, names });
    }
    let named = names.into_iter().filter_map(|name| {
        let name = Some(name);
        by_name.remove(&name).map(|entries| (name, entries))
    });
    let mut groups: Vec<_> = named.collect();
    if groups.is_empty() {
        groups.extend(by_name.remove_entry(&None));
    }
    Ok(groups)
}

/// Descends to the manifest for the platform.
fn select(
    place: &Place,
    index: &Index,
    (member, depth): (&str, usize),
    platform: &Platform,
) -> Result<Selected, LoadError> {
    if depth == NESTING_MAX {
        let what = format!("indexes are nested more than {NESTING_MAX} deep");
        return Err(LoadError::Inconsistent { from: place.from.clone(), what });
    }
    let mut available = index.platforms();
    for entry in index.candidates(platform) {
        let name = blob_name(&entry.digest);
        let bytes = blob(place, entry, MANIFEST_MAX)?;
        let selected = match parse(place, &name, (&bytes, Some(&entry.media_type)))? {
            Document::Manifest(manifest) => accept(place, (entry, manifest), platform),
            Document::Index(inner) => select(place, &inner, (&name, depth + 1), platform),
        };
        match selected {
            Err(LoadError::Document {
                source: DocumentError::NoPlatform { available: more, .. },
                ..
            }) => {
                available.extend(more.into_iter().filter(|it| !index.platforms().contains(it)));
            }
            outcome => return outcome,
        }
    }
    let wanted = platform.clone();
    Err(document(place, member, DocumentError::NoPlatform { wanted, available }))
}

fn accept(
    place: &Place,
    (entry, manifest): (&Descriptor, Manifest),
    platform: &Platform,
) -> Result<Selected, LoadError> {
    let (_, config) = config(place, &manifest)?;
    check_platform((&place.from, &blob_name(&manifest.config.digest)), &config, platform)?;
    Ok((entry.digest.clone(), manifest))
}

fn image(
    place: &Place,
    names: Vec<String>,
    (digest, manifest): Selected,
) -> Result<Archived, LoadError> {
    let (config_bytes, config) = config(place, &manifest)?;
    let layers = manifest.layers.into_iter().map(|descriptor| {
        let section = place.find(&blob_name(&descriptor.digest))?;
        check_size(place, &descriptor, section.size())?;
        Ok(ArchivedLayer { section, expected: Expected::Blob(descriptor) })
    });
    let layers = layers.collect::<Result<_, LoadError>>()?;
    let config_digest = manifest.config.digest;
    Ok(Archived { names, digest: Some(digest), config_bytes, config, config_digest, layers })
}

fn config(place: &Place, manifest: &Manifest) -> Result<(Vec<u8>, ImageConfig), LoadError> {
    let bytes = blob(place, &manifest.config, CONFIG_MAX)?;
    let config = ImageConfig::parse(&bytes)
        .map_err(|source| document(place, &blob_name(&manifest.config.digest), source))?;
    Ok((bytes, config))
}

/// The file of a blob in a layout.
fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// A whole blob, verified.
fn blob(place: &Place, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, LoadError> {
    let name = blob_name(&descriptor.digest);
    let bytes = place.read(&name, limit)?;
    check_size(place, descriptor, bytes.len() as u64)?;
    verify(&format!("{}: {name}", place.from), &descriptor.digest, &bytes)?;
    Ok(bytes)
}

fn check_size(place: &Place, descriptor: &Descriptor, got: u64) -> Result<(), LoadError> {
    if descriptor.size == got {
        return Ok(());
    }
    let object = format!("{}: {}", place.from, blob_name(&descriptor.digest));
    Err(LoadError::Size { object, expected: descriptor.size, got })
}

fn parse(
    place: &Place,
    member: &str,
    (bytes, media_type): (&[u8], Option<&str>),
) -> Result<Document, LoadError> {
    Document::parse(bytes, media_type).map_err(|source| document(place, member, source))
}

fn document(place: &Place, member: &str, source: DocumentError) -> LoadError {
    LoadError::Document { from: place.from.clone(), member: member.to_owned(), source }
}
