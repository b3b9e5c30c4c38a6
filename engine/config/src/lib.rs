//! The site's and the user's settings: `sarus.json`, the OCI hook files that select what runs
//! around a container, and seccomp profiles.
//!
//! Linked into `sarus-shim`, which may be installed setuid root: rules on text that is bounded in
//! size and depth, no network, no process. Parsing does no I/O; the `load` functions read and then
//! parse. Every refusal names file, line and key. Keys and their meaning: `docs/CONFIGURATION.md`.

mod config;
mod document;
mod environment;
mod error;
mod field;
pub mod hooks;
mod keys;
mod load;
mod parse;
pub mod seccomp;
mod trust;

pub use config::{
    Compression, Config, ContainersPolicy, ImageMount, KernelImages, Runtime, SeccompProfile,
    SiteDevice, SiteMount, Squashfs, UserMounts, Writable,
};
pub use document::{DEPTH_MAX, FILE_SIZE_MAX};
pub use environment::Environment;
pub use error::{ConfigError, Fault};
pub use field::parse_size;
pub use keys::{KEYS, KeyTable};
pub use load::{SYSTEM_CONFIG, config_home, load_for_user, load_system};
pub use parse::{Note, Parsed};
pub use trust::check_trusted;
