//! Image store: squashfs images and their metadata, shared by every node of a cluster.
//!
//! ```text
//! ROOT/images/v1/sha256-HEX/image.squashfs   the image; addressed by its manifest's digest
//! ROOT/images/v1/sha256-HEX/image.json       what a run and `inspect` need to know of it
//! ROOT/images/v1/sha256-HEX/removed          mark: no name is left; deleted after the grace period
//! ROOT/names/docker.io+library+debian=12,linux-amd64     which digest a reference means
//! ROOT/short-names/debian=12,linux-amd64      the full name that a short one means, if not docker.io's
//! ROOT/blobs/sha256-HEX                      verified blob of a registry: a bounded cache
//! ROOT/blobs/sha256-HEX.partial              the beginning of one, to be continued
//! ROOT/leases/sha256-HEX/OWNER,N             who downloads or converts that just now
//! ROOT/tmp/                                  what is being written, with its writer's name
//! ```
//!
//! A writer fills a directory or file in `tmp`, synchronises it, and renames it into its place:
//! readers take no lock, and no point in time leaves a store that does not work. Two writers of
//! one image both succeed: the second rename finds the first one's image and keeps it. The
//! temporaries' names carry host, boot, process and start time, so that the next writing command
//! removes what a killed one left. Needs neither extended attributes nor `flock`.
//!
//! Reading a name opens two files (three for a short one) and lists no directory. Knows nothing of registries, layers or
//! mounts.

mod blobs;
mod disk;
mod error;
mod layout;
mod lease;
mod metadata;
mod owner;
mod pending;
mod prune;
mod read;
mod short;
mod spread;
mod sweep;
mod verify;
mod write;
mod writeback;

pub use blobs::{Blobs, PartialBlob};
pub use error::StoreError;
pub use lease::{Claim, Holder, LEASE_EXPIRY, LEASE_RENEWAL, Lease, Report, Sign, Watch};
pub use metadata::{
    Conversion, Image, Layer, METADATA_VERSION, Metadata, Name, Reason, Remembered, Summary,
};
pub use owner::Owner;
pub use pending::Pending;
pub use prune::{Kind, Prunable, Pruned};
pub use read::{Listing, Store};
pub use short::ShortNames;
pub use verify::Verified;
pub use write::Removal;

use std::time::Duration;

/// Age from which a temporary of another host counts as left behind. No pull takes that long,
/// and what is being written is younger than its writer.
pub const FOREIGN_AGE_MAX: Duration = Duration::from_secs(48 * 3600);
