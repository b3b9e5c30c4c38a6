//! Images made to order, as the bytes that a registry serves.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::command::run;
use crate::tarball::Tar;

/// `sha256:<hex>` of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip
    Gzip,
    /// zstd
    Zstd,
    /// not at all
    Plain,
}

/// Whose media types a document names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The OCI's
    Oci,
    /// Docker's
    Docker,
}

/// An image being made: layers, oldest first, and the fields of its configuration.
#[derive(Debug, Clone)]
pub struct Image {
    layers: Vec<(Packing, Dialect, Vec<u8>)>,
    config: Value,
    dialect: Dialect,
    architecture: String,
}

/// What a registry holds of an image: its blobs, its manifests, and which manifest a tag names.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Blobs by digest.
    pub blobs: BTreeMap<String, Vec<u8>>,
    /// Media type and bytes of each manifest and index, those that others refer to first.
    pub manifests: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// An image without layers, for this machine's architecture.
    pub fn new() -> Self {
        Self {
            layers: Vec::new(),
            config: json!({}),
            dialect: Dialect::Oci,
            architecture: host_architecture().to_owned(),
        }
    }

    /// A root file system of BusyBox with its commands, users, and the usual directories.
    pub fn busybox() -> Self {
        Self::new()
            .layer(&busybox_root())
            .config(json!({"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "IMAGE=busybox"]}))
    }

    /// Adds a layer, compressed with gzip.
    pub fn layer(self, tar: &Tar) -> Self {
        self.packed_layer(tar, Packing::Gzip, Dialect::Oci)
    }

    /// Adds a layer.
    pub fn packed_layer(self, tar: &Tar, packing: Packing, dialect: Dialect) -> Self {
        self.raw_layer(tar.bytes(), packing, dialect)
    }

    /// Adds a layer of any bytes, tar or not.
    pub fn raw_layer(mut self, bytes: Vec<u8>, packing: Packing, dialect: Dialect) -> Self {
        self.layers.push((packing, dialect, bytes));
        self
    }

    /// Sets `config` of the image's configuration (`Env`, `Entrypoint`, ..).
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// Whose media types the manifest and the configuration have.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// Sets the architecture that the configuration names.
    pub fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// The documents and blobs.
    pub fn pack(&self) -> Packed {
        let mut blobs = BTreeMap::new();
        let mut store = |bytes: Vec<u8>, media_type: &str| {
            let digest = sha256(&bytes);
            let described = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
            blobs.insert(digest, bytes);
            described
        };
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|(packing, dialect, tar)| {
                store(compress(*packing, tar), layer_type(*packing, *dialect))
            })
            .collect();
        let configuration = json!({
            "created": "2020-09-13T12:26:40Z",
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": {
                "type": "layers",
                "diff_ids": self.layers.iter().map(|(_, _, tar)| sha256(tar)).collect::<Vec<_>>(),
            },
        });
        let (manifest_type, config_type) = match self.dialect {
            Dialect::Oci => (OCI_MANIFEST, "application/vnd.oci.image.config.v1+json"),
            Dialect::Docker => (DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json"),
        };
        let config = store(configuration.to_string().into_bytes(), config_type);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config,
            "layers": layers,
        });
        let bytes = serde_json::to_vec_pretty(&manifest).expect("JSON");
        Packed { blobs, manifests: vec![(manifest_type.to_owned(), bytes)] }
    }
}

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

impl Packed {
    /// The digest of the manifest or index that a tag names.
    pub fn digest(&self) -> String {
        sha256(&self.top().1)
    }

    /// Media type and bytes of what a tag names.
    pub fn top(&self) -> &(String, Vec<u8>) {
        self.manifests.last().expect("an image has a manifest")
    }

    /// Changes the manifest that a tag names, such as its final newline.
    pub fn edit(mut self, change: impl Fn(Vec<u8>) -> Vec<u8>) -> Self {
        let (media_type, bytes) = self.manifests.pop().expect("an image has a manifest");
        self.manifests.push((media_type, change(bytes)));
        self
    }

    /// The digests of the layers, oldest first, where a tag names a manifest.
    pub fn layer_digests(&self) -> Vec<String> {
        let manifest: Value = serde_json::from_slice(&self.top().1).expect("JSON");
        let layers = manifest["layers"].as_array().expect("a manifest has layers");
        layers.iter().map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
    }

    /// An index of several images, by architecture (`None`: an entry without a platform).
    pub fn index(dialect: Dialect, images: &[(Option<&str>, &Packed)]) -> Self {
        let mut joined = Self { blobs: BTreeMap::new(), manifests: Vec::new() };
        let mut entries = Vec::new();
        for (architecture, image) in images {
            let (media_type, bytes) = image.top();
            let mut entry = json!({
                "mediaType": media_type, "digest": image.digest(), "size": bytes.len(),
            });
            if let Some(architecture) = architecture {
                entry["platform"] = json!({"architecture": architecture, "os": "linux"});
            }
            entries.push(entry);
            joined.blobs.extend(image.blobs.clone());
            joined.manifests.extend(image.manifests.iter().cloned());
        }
        let media_type = match dialect {
            Dialect::Oci => "application/vnd.oci.image.index.v1+json",
            Dialect::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        };
        let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        joined.manifests.push((media_type.to_owned(), index.to_string().into_bytes()));
        joined
    }

    /// Writes an OCI layout with the image under the name `latest`.
    pub fn write_layout(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        fs_err::create_dir_all(&blobs).expect("a directory");
        let manifests = self.manifests.iter().map(|(_, bytes)| (sha256(bytes), bytes));
        let all = self.blobs.iter().map(|(digest, bytes)| (digest.clone(), bytes)).chain(manifests);
        for (digest, bytes) in all {
            fs_err::write(blobs.join(&digest["sha256:".len()..]), bytes).expect("a blob");
        }
        let (media_type, bytes) = self.top();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": media_type, "digest": self.digest(), "size": bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": "latest"},
        }]});
        fs_err::write(directory.join("index.json"), index.to_string()).expect("an index");
        fs_err::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("a layout");
    }

    /// Reads an OCI layout with one image.
    pub fn read_layout(directory: &Path) -> Self {
        let blob = |digest: &str| {
            let path = directory.join("blobs/sha256").join(&digest["sha256:".len()..]);
            fs_err::read(path).expect("a blob of the layout")
        };
        let index = fs_err::read(directory.join("index.json")).expect("an index");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        let bytes = blob(index["manifests"][0]["digest"].as_str().expect("a digest"));
        let manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
        let described = manifest["layers"].as_array().expect("layers").iter();
        let blobs = described
            .chain([&manifest["config"]])
            .map(|descriptor| descriptor["digest"].as_str().expect("a digest"))
            .map(|digest| (digest.to_owned(), blob(digest)))
            .collect();
        Self { blobs, manifests: vec![(OCI_MANIFEST.to_owned(), bytes)] }
    }
}

/// The real Debian image with su, sudo, a setuid-root `setuid-id`, and `capable-capsh` with
/// capabilities; see `ci/image`, which makes it once.
pub fn debian() -> Packed {
    debian_with("test")
}

/// One of the real Debian images of `ci/image`.
pub fn debian_with(name: &str) -> Packed {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ci/image");
    let layout = run(std::process::Command::new(script).arg(name));
    Packed::read_layout(Path::new(layout.trim()))
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn layer_type(packing: Packing, dialect: Dialect) -> &'static str {
    match (dialect, packing) {
        (Dialect::Oci, Packing::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
        (Dialect::Oci, Packing::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        (Dialect::Oci, Packing::Plain) => "application/vnd.oci.image.layer.v1.tar",
        (Dialect::Docker, Packing::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        (Dialect::Docker, Packing::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        (Dialect::Docker, Packing::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
    }
}

fn compress(packing: Packing, tar: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Plain => tar.to_vec(),
        Packing::Zstd => zstd::encode_all(tar, 1).expect("zstd"),
        Packing::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(tar).expect("gzip");
            encoder.finish().expect("gzip")
        }
    }
}

fn busybox_root() -> Tar {
    let program = fs_err::read("/bin/busybox").expect("busybox-static is installed");
    let commands = run(std::process::Command::new("/bin/busybox").arg("--list"));
    let mut tar = Tar::new();
    for directory in ["bin", "etc", "proc", "sys", "dev", "usr", "usr/bin", "var", "home"] {
        tar = tar.dir(directory);
    }
    tar = tar
        .dir("tmp")
        .mode(0o1777)
        .dir("root")
        .mode(0o700)
        .file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nservice:x:1000:1000::/srv:/bin/sh\n")
        .file("etc/group", "root:x:0:\nservice:x:1000:\n")
        .file("etc/os-release", "ID=busybox\nVERSION_ID=1\n")
        .dir("srv")
        .owner(1000, 1000)
        .file("srv/data", "original\n")
        .owner(1000, 1000)
        .mode(0o600)
        .file("bin/not-executable", "text\n")
        .file("bin/no-interpreter", "#!/no/such/interpreter\n")
        .mode(0o755)
        .file("bin/busybox", program)
        .mode(0o755);
    let names = commands.lines().filter(|name| *name != "busybox");
    names.fold(tar, |tar, name| tar.symlink(format!("bin/{name}"), "busybox"))
}
