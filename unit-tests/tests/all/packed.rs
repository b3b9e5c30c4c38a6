//! Small images as a registry has them: layers, configuration, manifest.

use std::collections::BTreeMap;
use std::io::Write;

use sarus_oci::manifest::{Descriptor, Manifest};
use sarus_oci::{Digest, Platform, Reference};
use sarus_registry::Resolved;
use serde_json::{Value, json};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image: its documents, and all blobs by digest.
#[derive(Clone)]
pub(crate) struct Packed {
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    pub(crate) layers: Vec<Descriptor>,
    config: Vec<u8>,
}

impl Packed {
    /// An image of these layers, oldest first, each a tar archive; the configuration's `config`.
    pub(crate) fn new(tars: &[Vec<u8>], execution: &Value) -> Self {
        let blobs: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let ids: Vec<String> = tars.iter().map(|tar| Digest::sha256_of(tar).to_string()).collect();
        Self::of_blobs(&blobs, &ids, execution)
    }

    /// An image of blobs that may be anything.
    pub(crate) fn of_blobs(blobs: &[Vec<u8>], diff_ids: &[String], execution: &Value) -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-05-01T10:00:00Z",
            "config": execution, "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let layers = blobs.iter().map(|blob| descriptor(GZIP, blob)).collect();
        let config = config.to_string().into_bytes();
        let all = blobs.iter().chain([&config]);
        let blobs = all.map(|blob| (Digest::sha256_of(blob), blob.clone())).collect();
        Self { blobs, layers, config }
    }

    /// One layer with one file, `/name`, that holds the name.
    pub(crate) fn simple(name: &str) -> Self {
        let tar = tar(&[(name, name.as_bytes())]);
        Self::new(&[tar], &json!({ "Cmd": ["sh"], "Env": ["A=1"] }))
    }

    /// Replaces the bytes of the configuration.
    pub(crate) fn with_config(mut self, config: &[u8]) -> Self {
        self.config = config.to_vec();
        self.blobs.insert(Digest::sha256_of(config), config.to_vec());
        self
    }

    pub(crate) fn manifest_bytes(&self) -> Vec<u8> {
        let config = descriptor("application/vnd.oci.image.config.v1+json", &self.config);
        json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": self.layers,
        })
        .to_string()
        .into_bytes()
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::sha256_of(&self.manifest_bytes())
    }

    pub(crate) fn config_digest(&self) -> Digest {
        Digest::sha256_of(&self.config)
    }

    /// As a registry client would resolve `reference`.
    pub(crate) fn resolved(&self, reference: &Reference, platform: &Platform) -> Resolved {
        Resolved {
            reference: reference.clone(),
            digest: self.digest(),
            index_digest: None,
            platform: platform.clone(),
            manifest: Manifest {
                config: descriptor("application/vnd.oci.image.config.v1+json", &self.config),
                layers: self.layers.clone(),
            },
            manifest_bytes: self.manifest_bytes(),
            config_bytes: self.config.clone(),
        }
    }
}

pub(crate) fn descriptor(media_type: &str, blob: &[u8]) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::sha256_of(blob),
        size: blob.len().try_into().unwrap(),
        platform: None,
        annotations: BTreeMap::new(),
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar archive of files that belong to user 1000 and group 100.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        let mut header = [0; 512];
        let mut put = |at: usize, text: &str| {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, name);
        put(100, "0000644\0");
        put(108, "0001750\0");
        put(116, "0000144\0");
        put(124, &format!("{:011o}\0", content.len()));
        put(136, "00000000000\0");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(*content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
