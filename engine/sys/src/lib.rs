//! System calls that the engine and the shim need, behind safe types.
//!
//! Mounts, namespaces, loop devices, processes and signals, users, paths inside a root. All
//! unsafe code of the project is here and in `sarus-entry`. Knows nothing of images or
//! containers, but for the name by which a run's overlay is recognised (`orphans`).

pub mod fuse;
pub mod identity;
pub mod interrupt;
pub mod loop_device;
pub mod mount;
pub mod namespace;
pub mod orphans;
pub mod process;
pub mod rendezvous;
pub mod root;
pub mod scratch;
pub mod signals;
pub mod users;
pub mod verity;
