//! What users do with images: pull, load, list, inspect, remove, export, and find one to run.
//!
//! Brings registry, conversion and store together. Prints nothing: progress goes to an
//! [`Observer`]. Finding an image to run opens a handful of files and touches no network.

mod admit;
mod documents;
mod error;
mod export;
mod fetch;
mod file;
mod flow;
mod keeper;
mod load;
mod look;
mod observer;
mod pull;
mod remove;
mod source;
mod stores;
mod timing;
mod turn;
mod verify;

pub use error::{ImageError, Reported};
pub use export::{export, unpack, unpack_at};
pub use file::{ImageFile, Target};
pub use load::{Format, LoadError, LoadRequest, Loaded, Location, Place, SifError, load};
pub use look::Looked;
pub use observer::{LayerSize, Observer, Origin, Other, Progress, Silent};
pub use pull::{PARALLEL_DEFAULT, PullSettings, Pulled, pull};
pub use remove::{Extent, Removed, remove};
pub use source::Source;
pub use stores::{Found, Stores};
pub use timing::{Phase, Timing};
pub use verify::{Depth, Soundness, verify, verify_file};

pub use sarus_policy as policy;
pub use sarus_registry as registry;
pub use sarus_squash as squash;
pub use sarus_store::{
    Image, Kind, Listing, METADATA_VERSION, Metadata, Name, Prunable, Pruned, Removal, ShortNames,
    Store, StoreError, Summary, Verified,
};
