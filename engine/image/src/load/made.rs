//! Documents for what comes without: a manifest for an archive of Docker's, and a configuration
//! for a root file system. The same content gives the same bytes, hence the same digest. No I/O.

use sarus_oci::manifest::{OCI_CONFIG, OCI_MANIFEST};
use sarus_oci::{Digest, Platform};
use serde::Serialize;

/// Media type of a layer that is not compressed.
pub(super) const PLAIN_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer as it is when it is not compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlainLayer {
    /// Digest of the tar archive.
    pub(super) diff_id: Digest,
    /// Its length in bytes.
    pub(super) size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: Descriptor<'a>,
    layers: Vec<Descriptor<'a>>,
}

/// Digest of the manifest of an image with these plain layers, however the archive packs them.
pub(super) fn manifest_digest(config: &[u8], layers: &[PlainLayer]) -> Digest {
    let digest = Digest::sha256_of(config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: Descriptor { media_type: OCI_CONFIG, digest: &digest, size: config.len() as u64 },
        layers: layers
            .iter()
            .map(|layer| Descriptor {
                media_type: PLAIN_LAYER,
                digest: &layer.diff_id,
                size: layer.size,
            })
            .collect(),
    };
    Digest::sha256_of(&json(&manifest))
}

#[derive(Serialize)]
struct Config<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    config: &'a serde_json::Value,
    rootfs: Rootfs<'a>,
}

#[derive(Serialize)]
struct Rootfs<'a> {
    r#type: &'a str,
    diff_ids: [&'a Digest; 1],
}

/// The configuration of an image that is one layer; `execution` is its `config`.
pub(super) fn config(
    platform: &Platform,
    execution: &serde_json::Value,
    diff_id: &Digest,
) -> Vec<u8> {
    json(&Config {
        architecture: platform.architecture(),
        os: platform.os(),
        variant: platform.variant(),
        config: execution,
        rootfs: Rootfs { r#type: "layers", diff_ids: [diff_id] },
    })
}

/// Structures of text and numbers always are JSON.
fn json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_manifest_is_an_image_manifest_and_always_the_same() {
        let layer = PlainLayer { diff_id: Digest::sha256_of(b"layer"), size: 5 };
        let platform = Platform::parse("linux/arm64").unwrap();
        let config = config(&platform, &serde_json::json!({}), &layer.diff_id);
        let parsed = sarus_oci::ImageConfig::parse(&config).unwrap();
        assert_eq!(parsed.platform(), Some(platform));
        assert_eq!(parsed.diff_ids, std::slice::from_ref(&layer.diff_id));
        let digest = manifest_digest(&config, std::slice::from_ref(&layer));
        assert_eq!(
            digest.to_string(),
            "sha256:09d501a32c7641beb4a9eee5fbccd6cb5dfecd3b39d182af3efe0c3973a13819",
            "a change of these bytes gives every loaded image a new digest"
        );
    }
}
