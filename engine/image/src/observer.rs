//! What a pull tells while it goes on.

use std::fmt;

use sarus_oci::{Digest, Reference};

pub use sarus_squash::Progress;

/// Is told how a pull goes on; from several threads at once. Everything may be ignored.
pub trait Observer: Sync {
    /// The name under which the image was found; a short one may lead to any registry.
    fn found(&self, _name: &Reference) {}
    /// The image is not in the store: these layers are fetched and converted, oldest first.
    fn begin(&self, _layers: &[LayerSize]) {}
    /// So many bytes of a layer are there, of those that count from its beginning.
    fn fetched(&self, _layer: usize, _bytes: u64) {}
    /// A layer is there and verified.
    fn layer_done(&self, _layer: usize, _origin: Origin) {}
    /// So much of the layers is converted.
    fn converted(&self, _progress: Progress) {}
    /// Another process pulls the image; this one waits for it. Told again and again, with the
    /// other one's progress.
    fn waiting(&self, _other: &Other) {}
    /// The process that was waited for is dead, or stands still; this one takes over.
    fn taking_over(&self, _other: &Other) {}
    /// All is converted and verified; the image is being made to last.
    fn storing(&self) {}
}

/// A layer to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSize {
    /// Digest of the blob.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A process that pulls an image, on this node or another.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Other {
    /// Its node's name; empty when that is not known.
    pub host: String,
    /// Its number there.
    pub pid: u32,
    /// Bytes that it has fetched.
    pub fetched: u64,
    /// Bytes to be fetched; zero when that is not known yet.
    pub total: u64,
}

impl Other {
    pub(crate) fn of(holder: &sarus_store::Holder) -> Self {
        let owner = holder.owner.as_ref();
        Self {
            host: owner.map(|owner| owner.host().to_owned()).unwrap_or_default(),
            pid: owner.map_or(0, sarus_store::Owner::pid),
            fetched: holder.report.fetched,
            total: holder.report.total,
        }
    }
}

impl fmt::Display for Other {
    /// `process 4711 on node17`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.is_empty() {
            return f.write_str("another process");
        }
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// Where a layer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The registry, at least its end.
    Registry,
    /// The blob cache.
    Cache,
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {}
