//! What an image's documents say, and the metadata that a store keeps of them.

use sarus_oci::{Digest, ImageConfig, Platform};
use sarus_squash::{Converted, Settings};
use sarus_store::{Conversion, Layer, METADATA_VERSION, Metadata};

/// What the metadata say besides the conversion's numbers.
pub(crate) struct Documents {
    /// The manifest's digest.
    pub(crate) digest: Digest,
    pub(crate) config_digest: Digest,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<Layer>,
}

impl Documents {
    /// The metadata of the image that was converted with `squash`; `platform` is that of an image
    /// whose configuration names none.
    pub(crate) fn metadata(
        self,
        converted: Converted,
        squash: &Settings,
        platform: &Platform,
    ) -> Metadata {
        Metadata {
            version: METADATA_VERSION,
            digest: self.digest,
            config_digest: self.config_digest,
            platform: self.config.platform().unwrap_or_else(|| platform.clone()),
            created: self.config.created,
            config: self.config.config,
            layers: self.layers,
            ids: converted.ids,
            conversion: Conversion {
                bytes: converted.bytes,
                unpacked_bytes: converted.unpacked_bytes,
                entries: converted.entries,
                compression: squash.compression.to_string(),
                block_size: squash.block_size,
                squashfs_digest: None,
            },
        }
    }
}
