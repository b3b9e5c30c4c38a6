//! One image of an archive: its documents, and where its layers lie.

use sarus_oci::manifest::Descriptor;
use sarus_oci::{Digest, ImageConfig, Platform};

use super::LoadError;
use super::files::Section;

/// Largest manifest or index in bytes: as registries'.
pub(super) const MANIFEST_MAX: u64 = 4 << 20;
/// Largest image configuration in bytes.
pub(super) const CONFIG_MAX: u64 = 8 << 20;

/// An image of an archive. Its documents are verified as far as the archive has digests of them;
/// its layers are when they are read.
#[derive(Debug)]
pub(super) struct Archived {
    /// What the archive calls it: names, or tags without a name.
    pub(super) names: Vec<String>,
    /// Digest of its manifest; none where one has to be made.
    pub(super) digest: Option<Digest>,
    /// Bytes of its configuration.
    pub(super) config_bytes: Vec<u8>,
    /// The same, parsed.
    pub(super) config: ImageConfig,
    /// Digest of the configuration.
    pub(super) config_digest: Digest,
    /// The layers, oldest first.
    pub(super) layers: Vec<ArchivedLayer>,
}

/// A layer of an archive.
#[derive(Debug)]
pub(super) struct ArchivedLayer {
    pub(super) section: Section,
    pub(super) expected: Expected,
}

/// What the documents say of a layer.
#[derive(Debug)]
pub(super) enum Expected {
    /// The blob as it lies in the archive.
    Blob(Descriptor),
    /// The digest of the layer when it is not compressed.
    DiffId(Digest),
}

impl ArchivedLayer {
    pub(super) fn digest(&self) -> &Digest {
        match &self.expected {
            Expected::Blob(descriptor) => &descriptor.digest,
            Expected::DiffId(digest) => digest,
        }
    }
}

/// Compares bytes with the digest they must have.
pub(super) fn verify(object: &str, expected: &Digest, bytes: &[u8]) -> Result<(), LoadError> {
    if expected.matches(bytes) {
        return Ok(());
    }
    let got = Digest::sha256_of(bytes);
    Err(LoadError::Digest { object: object.to_owned(), expected: expected.clone(), got })
}

/// Refuses an image that does not run on `wanted`.
pub(super) fn check_platform(
    (from, member): (&str, &str),
    config: &ImageConfig,
    wanted: &Platform,
) -> Result<(), LoadError> {
    match config.platform() {
        Some(platform) if !wanted.accepts(&platform) => Err(LoadError::Document {
            from: from.to_owned(),
            member: member.to_owned(),
            source: sarus_oci::DocumentError::NoPlatform {
                wanted: wanted.clone(),
                available: vec![platform],
            },
        }),
        _ => Ok(()),
    }
}
