//! What users do with images: pull, list, inspect, remove, export, and find one to run.
//!
//! Brings registry, conversion and store together. Prints nothing: progress goes to an
//! [`Observer`]. Finding an image to run opens a handful of files and touches no network.

mod admit;
mod error;
mod export;
mod fetch;
mod file;
mod flow;
mod observer;
mod pull;
mod remove;
mod source;
mod stores;

pub use error::ImageError;
pub use export::{export, unpack};
pub use file::{ImageFile, Target};
pub use observer::{LayerSize, Observer, Origin, Progress, Silent};
pub use pull::{PARALLEL_DEFAULT, PullSettings, Pulled, pull};
pub use remove::{Extent, Removed, remove};
pub use source::Source;
pub use stores::{Found, Stores};

pub use sarus_policy as policy;
pub use sarus_registry as registry;
pub use sarus_squash as squash;
pub use sarus_store::{
    Image, Listing, METADATA_VERSION, Metadata, Name, Removal, Store, StoreError,
};
