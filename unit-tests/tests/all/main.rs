//! Tests of the public interfaces of all crates, in one binary: linking dominates.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what a test stands on and gives way ends the test"
)]
#![expect(clippy::too_many_lines, clippy::type_complexity, reason = "a test is often a table")]

mod bombs;
mod cli;
mod config;
mod fuzz;
mod hooks;
mod image;
mod launch;
mod load;
mod oci;
mod packed;
mod place;
mod policy;
mod registry;
mod seccomp;
mod squash_format;
mod squash_merge;
mod store;
