//! What is fuzzed: one function for each parser of what strangers, users or sites wrote.
//!
//! A function takes any bytes and returns; a panic is a finding. Besides, each asks what must hold
//! of an input that is accepted. They are run by libFuzzer (`ci/fuzz`, `cargo fuzz`), and by a unit
//! test over the corpus and mutations of it.

mod load;
mod squash;
mod text;

pub use load::{archive, policy};
pub use squash::{layer, squashfs, tar};
pub use text::{config, hook, manifest, reference, registries, request, seccomp};

/// A directory for a target's files, in memory where that can be.
fn temporary_directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    directory.expect("a temporary directory")
}

/// All targets by the name of their corpus.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("reference", reference),
    ("manifest", manifest),
    ("tar", tar),
    ("layer", layer),
    ("squashfs", squashfs),
    ("config", config),
    ("hook", hook),
    ("seccomp", seccomp),
    ("registries", registries),
    ("request", request),
    ("archive", archive),
    ("policy", policy),
];
