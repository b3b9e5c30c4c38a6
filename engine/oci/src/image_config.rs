//! The image configuration: what to execute, as which user, where, and the layers' diff ids.
//!
//! Lenient where builders differ: every field may be missing or `null`, unknown fields are
//! dropped. Strict on types: a list where a text belongs is an error.
//! Specification: OCI image-spec `config.md`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, DocumentError, Platform};

/// The parts of an image configuration that an engine acts on or shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct ImageConfig {
    /// When the image was built, RFC 3339, as the builder wrote it; not checked.
    pub created: Option<String>,
    /// Who built it.
    pub author: Option<String>,
    /// GOARCH, as written.
    pub architecture: Option<String>,
    /// GOOS, as written.
    pub os: Option<String>,
    /// Variant of the architecture, as written.
    pub variant: Option<String>,
    /// What to execute and how.
    #[serde(deserialize_with = "null_is_default")]
    pub config: Execution,
    /// Digests of the unpacked layers, oldest first.
    #[serde(rename = "rootfs", deserialize_with = "diff_ids", serialize_with = "rootfs")]
    pub diff_ids: Vec<Digest>,
    /// How the layers came to be, oldest first; has entries without a layer too.
    #[serde(deserialize_with = "null_is_default")]
    pub history: Vec<History>,
}

/// The `config` object of an image configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Execution {
    /// `USER`, `USER:GROUP`, names or numbers; empty or missing is root.
    pub user: Option<String>,
    /// Variables, `NAME=VALUE`, in order.
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// Program and first arguments. `None` differs from an empty list in Docker's rules.
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, or the command when there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Working directory; empty or missing is `/`.
    pub working_dir: Option<String>,
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the container to stop: `SIGTERM`, `15`.
    pub stop_signal: Option<String>,
    /// Paths meant for volumes, sorted.
    #[serde(deserialize_with = "keys", serialize_with = "key_objects")]
    pub volumes: Vec<String>,
    /// `PORT/PROTOCOL` entries, sorted.
    #[serde(deserialize_with = "keys", serialize_with = "key_objects")]
    pub exposed_ports: Vec<String>,
}

/// One step of an image's history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339; not checked.
    pub created: Option<String>,
    /// The command that made the step.
    pub created_by: Option<String>,
    /// A remark of the builder.
    pub comment: Option<String>,
    /// Whether the step has no layer.
    #[serde(deserialize_with = "null_is_default")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Parses the bytes of a configuration blob. The caller has verified their digest.
    ///
    /// # Errors
    ///
    /// [`DocumentError::Json`] if `bytes` are no JSON object or a field has the wrong type.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let failed = |source| DocumentError::Json { document: "image configuration", source };
        // serde takes an array for a structure as well.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            return Err(failed(serde::de::Error::custom("an array, not an object")));
        }
        serde_json::from_slice(bytes).map_err(failed)
    }

    /// The platform it was built for, or `None` if the builder named no architecture.
    ///
    /// A missing operating system is taken to be `linux`.
    pub fn platform(&self) -> Option<Platform> {
        let architecture = self.architecture.as_deref().filter(|name| !name.is_empty())?;
        let os = self.os.as_deref().filter(|name| !name.is_empty()).unwrap_or("linux");
        Some(Platform::new(os, architecture, self.variant.as_deref()))
    }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Go writes a set as an object with empty objects as values.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let set: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(deserializer)?;
    Ok(set.unwrap_or_default().into_keys().collect())
}

#[expect(clippy::ptr_arg, reason = "serde passes the field's own type")]
fn key_objects<S: serde::Serializer>(keys: &Vec<String>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Empty {}
    serializer.collect_map(keys.iter().map(|key| (key, Empty {})))
}

#[derive(Deserialize)]
struct Rootfs {
    #[serde(default, deserialize_with = "null_is_default")]
    diff_ids: Vec<Digest>,
}

fn diff_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Digest>, D::Error> {
    Ok(Option::<Rootfs>::deserialize(deserializer)?
        .map(|rootfs| rootfs.diff_ids)
        .unwrap_or_default())
}

fn rootfs<S: serde::Serializer>(ids: &Vec<Digest>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Written<'a> {
        r#type: &'static str,
        diff_ids: &'a Vec<Digest>,
    }
    Written { r#type: "layers", diff_ids: ids }.serialize(serializer)
}
