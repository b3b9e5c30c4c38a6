//! Tests of the public interfaces of all crates, in one binary: linking dominates.

mod cli;
mod config;
mod hooks;
mod image;
mod launch;
mod oci;
mod packed;
mod registry;
mod squash_format;
mod squash_merge;
mod store;
