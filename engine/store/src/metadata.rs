//! What the store keeps of an image beside the squashfs file.
//!
//! Nothing in [`Metadata`] depends on when or where the image was pulled: two pulls write the
//! same bytes. What does depend on it is in [`Name`].

use std::path::PathBuf;

use sarus_oci::{Digest, Execution, Platform, Reference};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// The version of `image.json` and of name files that this build writes, and the newest it reads.
pub const METADATA_VERSION: u32 = 1;

/// An image in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Digest of the platform's manifest.
    pub digest: Digest,
    /// The squashfs file, with the length that the metadata gives.
    pub squashfs: PathBuf,
    /// What belongs to it.
    pub metadata: Metadata,
}

/// The content of `image.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// [`METADATA_VERSION`] of the writer.
    pub version: u32,
    /// Digest of the platform's manifest.
    pub digest: Digest,
    /// Digest of the image's configuration: Docker's image id.
    pub config_digest: Digest,
    /// What the image was built for.
    pub platform: Platform,
    /// When the image was made, as the configuration says (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// `config` of the image's configuration: what to execute and how.
    pub config: Execution,
    /// The layers, oldest first.
    pub layers: Vec<Layer>,
    /// The image's real owners by index; the squashfs file's own id table holds zeros.
    pub ids: Vec<u32>,
    /// How the squashfs file was made.
    pub conversion: Conversion,
}

/// One layer as the manifest names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Digest of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// Media type of the blob.
    pub media_type: String,
}

/// How the squashfs file was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conversion {
    /// Length of the squashfs file in bytes.
    pub bytes: u64,
    /// Digest of the squashfs file, for `Image::verify`; the store computes it when the image is
    /// committed. None in images that an older version stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub squashfs_digest: Option<Digest>,
    /// Bytes in regular files, as a program in the container reads them.
    pub unpacked_bytes: u64,
    /// Number of entries in the merged tree.
    pub entries: u64,
    /// Compressor and level: `zstd:1`.
    pub compression: String,
    /// Squashfs block size in bytes.
    pub block_size: u32,
}

/// What a list shows of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// [`Metadata::config_digest`]
    pub config_digest: Digest,
    /// [`Metadata::platform`]
    pub platform: Platform,
    /// [`Metadata::created`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// [`Conversion::bytes`]
    pub bytes: u64,
}

impl Metadata {
    /// The part of it that lists show.
    pub fn summary(&self) -> Summary {
        Summary {
            config_digest: self.config_digest.clone(),
            platform: self.platform.clone(),
            created: self.created.clone(),
            bytes: self.conversion.bytes,
        }
    }
}

/// An image's summary with its name, and by what is seen that it is not the image's any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// Length of `image.json` in bytes.
    pub metadata_bytes: u64,
    /// What it says.
    pub summary: Summary,
}

/// JSON that is kept as it was given, and not parsed with what it is kept in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reason(Box<RawValue>);

impl Reason {
    /// None for what cannot be JSON.
    pub fn new(value: &impl Serialize) -> Option<Self> {
        to_raw_value(value).ok().map(Self)
    }

    /// What it says.
    pub fn value(&self) -> serde_json::Value {
        // It was JSON when it was made.
        serde_json::from_str(self.0.get()).unwrap_or_default()
    }
}

impl PartialEq for Reason {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

/// The content of a name file: which image a reference means on one platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Name {
    /// [`METADATA_VERSION`] of the writer.
    pub version: u32,
    /// The reference.
    pub reference: Reference,
    /// The platform that was asked for.
    pub platform: Platform,
    /// Digest of the platform's manifest.
    pub digest: Digest,
    /// Seconds since 1970 when the name was last given to this digest.
    pub pulled: u64,
    /// Why the image was let in under this name, as whoever gave the name says. For people:
    /// the store does not look into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<Reason>,
    /// What lists show of the image, so that listing a thousand opens one file for each. None in
    /// names that an older version gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Remembered>,
}
