//! What a pull tells while it goes on.

use sarus_oci::Digest;

pub use sarus_squash::Progress;

/// Is told how a pull goes on; from several threads at once. Everything may be ignored.
pub trait Observer: Sync {
    /// The image is not in the store: these layers are fetched and converted, oldest first.
    fn begin(&self, _layers: &[LayerSize]) {}
    /// So many bytes of a layer are there, of those that count from its beginning.
    fn fetched(&self, _layer: usize, _bytes: u64) {}
    /// A layer is there and verified.
    fn layer_done(&self, _layer: usize, _origin: Origin) {}
    /// So much of the layers is converted.
    fn converted(&self, _progress: Progress) {}
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
