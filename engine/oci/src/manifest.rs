//! Manifests and indexes: which document it is, what it holds, which entry fits a platform.
//!
//! Docker's and OCI's media types mean the same and come mixed. A document is never trusted:
//! one that could be read as two kinds, is of an old schema, or describes something that is no
//! image, is refused by name. Specification: OCI image-spec `manifest.md`, `image-index.md`.
//! Digests are not looked at here: they are those of the bytes as sent, which the caller has.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, DocumentError, Platform};

/// Media types of documents this engine can use, most wanted first; for an `Accept` header.
pub const ACCEPTED: &[&str] = &[OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];

/// OCI's image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Docker's manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// OCI's image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker's manifests of schema 1, plain and signed; refused.
const DOCKER_SCHEMA_1: &[&str] = &[
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
/// Configurations of images that Docker 1.10 pushed.
const OLD_DOCKER_CONFIG: &str = "application/octet-stream";
/// Annotation by which BuildKit marks what is no image in an index.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// How a layer is packed. Readers detect it from the bytes; this is what the manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// A plain tar archive.
    Plain,
    /// Compressed by gzip.
    Gzip,
    /// Compressed by zstd.
    Zstd,
}

/// What a manifest or an index says of one blob or document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type, as written.
    pub media_type: String,
    /// Digest of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
    /// Platform, in an index.
    #[serde(
        default,
        deserialize_with = "platform",
        serialize_with = "platform_object",
        skip_serializing_if = "Option::is_none"
    )]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// A manifest: one image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Descriptor of the image configuration; its media type is one of an image.
    pub config: Descriptor,
    /// Layers, oldest first; each of a media type that [`packing`] knows.
    pub layers: Vec<Descriptor>,
}

/// An index, in Docker's words a manifest list: one entry for each platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Entries as written, attestations too.
    pub manifests: Vec<Descriptor>,
}

/// What a registry gave under the name of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// An index or manifest list.
    Index(Index),
    /// A manifest.
    Manifest(Manifest),
}

/// How a layer of this media type is packed, `None` if it is no layer of an image.
///
/// Layers that must not be distributed (`nondistributable`, `foreign`) are layers like others.
pub fn packing(media_type: &str) -> Option<Packing> {
    match bare(media_type) {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar" => Some(Packing::Plain),
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(Packing::Gzip),
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd" => Some(Packing::Zstd),
        _ => None,
    }
}

/// Whether a descriptor of this media type leads to an index.
pub fn is_index(media_type: &str) -> bool {
    matches!(bare(media_type), OCI_INDEX | DOCKER_INDEX)
}

/// A media type without its parameters (`; charset=utf-8`).
fn bare(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// The fields of both kinds, as far as they tell which one it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<serde_json::Number>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Parses the bytes of a manifest or index. The caller has verified their digest.
    ///
    /// What kind it is says its own `mediaType`, else `content_type` (of the response or of the
    /// descriptor that led here) if that is a kind known here, else its fields. A document with
    /// the fields of both kinds is refused whatever it says it is.
    ///
    /// # Errors
    ///
    /// Any [`DocumentError`] but [`DocumentError::NoPlatform`].
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Self, DocumentError> {
        let outline: Outline = serde_json::from_slice(bytes)
            .map_err(|source| DocumentError::Json { document: "the manifest", source })?;
        if is_index(outline.kind(content_type)?) {
            #[derive(Deserialize)]
            struct Fields {
                manifests: Vec<Descriptor>,
            }
            let Fields { manifests } = serde_json::from_slice(bytes)
                .map_err(|source| DocumentError::Json { document: "the image index", source })?;
            return Ok(Self::Index(Index { manifests }));
        }
        Manifest::parse(bytes, outline.artifact_type).map(Self::Manifest)
    }
}

impl Outline {
    /// The media type that decides: one of [`ACCEPTED`].
    fn kind(&self, content_type: Option<&str>) -> Result<&'static str, DocumentError> {
        let said = self.media_type.as_deref().map(bare).filter(|said| !said.is_empty());
        let sent = content_type.map(bare);
        let schema1 = |given: Option<&str>| given.is_some_and(|it| DOCKER_SCHEMA_1.contains(&it));
        if schema1(said) || self.fs_layers.is_some() || (said.is_none() && schema1(sent)) {
            return Err(DocumentError::Schema1);
        }
        match self.schema_version.as_ref().map(serde_json::Number::as_u64) {
            Some(Some(2)) => {}
            Some(Some(1)) => return Err(DocumentError::Schema1),
            _ => {
                let got = self.schema_version.as_ref();
                let got = got.map_or_else(|| "missing".to_owned(), ToString::to_string);
                return Err(DocumentError::SchemaVersion { got });
            }
        }
        let is_manifest = self.layers.is_some() || self.config.is_some();
        if self.manifests.is_some() && is_manifest {
            let what = "a manifest and an index at the same time";
            return Err(DocumentError::Ambiguous { what });
        }
        let known = |given: &str| ACCEPTED.iter().copied().find(|known| *known == given);
        if let Some(said) = said {
            return known(said)
                .ok_or_else(|| DocumentError::MediaType { media_type: said.to_owned() });
        }
        match sent.and_then(known) {
            Some(kind) => Ok(kind),
            None if self.manifests.is_some() => Ok(OCI_INDEX),
            None if is_manifest => Ok(OCI_MANIFEST),
            None => Err(DocumentError::Ambiguous { what: "neither a manifest nor an index" }),
        }
    }
}

impl Manifest {
    fn parse(bytes: &[u8], artifact_type: Option<String>) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct Fields {
            config: Descriptor,
            layers: Vec<Descriptor>,
        }
        let Fields { config, layers } = serde_json::from_slice(bytes)
            .map_err(|source| DocumentError::Json { document: "the manifest", source })?;
        if !matches!(bare(&config.media_type), OCI_CONFIG | DOCKER_CONFIG | OLD_DOCKER_CONFIG) {
            let artifact_type = artifact_type
                .filter(|given| !given.is_empty())
                .unwrap_or_else(|| config.media_type.clone());
            return Err(DocumentError::Artifact { artifact_type });
        }
        if let Some(layer) = layers.iter().find(|layer| packing(&layer.media_type).is_none()) {
            let (digest, media_type) = (layer.digest.clone(), layer.media_type.clone());
            return Err(DocumentError::Layer { digest, media_type });
        }
        Ok(Self { config, layers })
    }
}

impl Index {
    /// The entry that fits `wanted` best.
    ///
    /// # Errors
    ///
    /// [`DocumentError::NoPlatform`] with all platforms that are there.
    pub fn select(&self, wanted: &Platform) -> Result<&Descriptor, DocumentError> {
        self.candidates(wanted).first().copied().ok_or_else(|| DocumentError::NoPlatform {
            wanted: wanted.clone(),
            available: self.platforms(),
        })
    }

    /// All entries that may fit, best first: by distance of the platform and then in order;
    /// last come entries that say no platform, which have to be looked into.
    pub fn candidates(&self, wanted: &Platform) -> Vec<&Descriptor> {
        let mut ranked: Vec<(u32, &Descriptor)> = self
            .images()
            .filter_map(|entry| match &entry.platform {
                Some(platform) => wanted.distance(platform).map(|distance| (distance, entry)),
                None => Some((u32::MAX, entry)),
            })
            .collect();
        ranked.sort_by_key(|(distance, _)| *distance);
        ranked.into_iter().map(|(_, entry)| entry).collect()
    }

    /// The platforms that entries say they are for, in order, each once.
    pub fn platforms(&self) -> Vec<Platform> {
        let mut platforms: Vec<Platform> = Vec::new();
        for platform in self.images().filter_map(|entry| entry.platform.as_ref()) {
            if !platforms.contains(platform) {
                platforms.push(platform.clone());
            }
        }
        platforms
    }

    /// The entries that are images: not attestations, whose platform is `unknown/unknown`.
    fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| {
            let unknown = entry.platform.as_ref().is_some_and(|platform| {
                platform.os() == "unknown" || platform.architecture() == "unknown"
            });
            !unknown && !entry.annotations.contains_key(REFERENCE_TYPE)
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PlatformObject {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
}

/// An empty platform object says as little as none.
fn platform<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Platform>, D::Error> {
    let object: Option<PlatformObject> = Option::deserialize(deserializer)?;
    Ok(object
        .filter(|object| !object.architecture.is_empty())
        .map(|object| Platform::new(&object.os, &object.architecture, object.variant.as_deref())))
}

#[expect(clippy::ref_option, reason = "serde passes the field's own type")]
fn platform_object<S: serde::Serializer>(
    platform: &Option<Platform>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let object = platform.as_ref().map(|platform| PlatformObject {
        os: platform.os().to_owned(),
        architecture: platform.architecture().to_owned(),
        variant: platform.variant().map(str::to_owned),
    });
    object.serialize(serializer)
}

fn null_is_empty<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
