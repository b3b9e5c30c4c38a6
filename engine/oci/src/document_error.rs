//! What can be wrong with a manifest, an index or a configuration, and what to do about it.

use crate::{Digest, Platform};

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// No JSON, or a field is missing or of the wrong type.
    #[error("{document} cannot be read")]
    Json {
        /// Which kind of document.
        document: &'static str,
        /// Where and what.
        #[source]
        source: serde_json::Error,
    },
    /// Docker's first schema.
    #[error("the manifest is of Docker's schema 1, which is obsolete and not supported")]
    Schema1,
    /// A schema version that is not 2.
    #[error("the manifest has `schemaVersion` {got}, expected 2")]
    SchemaVersion {
        /// The version, or `missing`.
        got: String,
    },
    /// A media type that is none of a manifest or an index.
    #[error("`{media_type}` is no media type of an image manifest or index")]
    MediaType {
        /// The type.
        media_type: String,
    },
    /// The fields are those of neither or of both kinds.
    #[error("the document is {what}")]
    Ambiguous {
        /// What it looks like.
        what: &'static str,
    },
    /// An artifact: a chart, a signature, a model.
    #[error(
        "the manifest is that of an artifact of type `{artifact_type}`, not of a container image"
    )]
    Artifact {
        /// The artifact's type, else the type of its configuration.
        artifact_type: String,
    },
    /// A layer that cannot be unpacked.
    #[error("layer `{digest}` has media type `{media_type}`, which is not supported")]
    Layer {
        /// The layer.
        digest: Digest,
        /// Its type.
        media_type: String,
    },
    /// No entry of an index runs on the platform.
    #[error("no image for platform `{wanted}`; available: {}", list(available))]
    NoPlatform {
        /// The platform asked for.
        wanted: Platform,
        /// All platforms the index has, in its order.
        available: Vec<Platform>,
    },
}

impl DocumentError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Schema1 => Some(
                "push the image again with a current tool, for example `skopeo copy --format oci`"
                    .to_owned(),
            ),
            Self::NoPlatform { available, .. } => available.first().map(|platform| {
                format!("an image of another platform can be pulled with `--platform {platform}`")
            }),
            Self::Artifact { .. } => {
                Some("name a container image; artifacts have tools of their own".to_owned())
            }
            Self::Layer { media_type, .. } if media_type.ends_with("+encrypted") => Some(
                "decrypt the image first, for example with `skopeo copy --decryption-key`"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

fn list(platforms: &[Platform]) -> String {
    if platforms.is_empty() {
        return "none".to_owned();
    }
    platforms.iter().map(|platform| format!("`{platform}`")).collect::<Vec<_>>().join(", ")
}
