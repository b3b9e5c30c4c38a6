//! Signature policy: which images are let in, and on whose signature.
//!
//! Specifications: containers-policy.json(5); the payload of cosign's signatures is the
//! containers project's `simple signing` format. Parsing and matching do no I/O; only
//! the policy itself
//! and the keys that a rule names are read from files. Knows nothing of
//! registries: whoever asks brings the signatures.

mod admit;
mod error;
mod identity;
mod json;
mod key;
mod parse;
mod payload;
mod policy;
mod subject;

pub use admit::{Admission, Evidence, Met, Signature};
pub use error::{PolicyError, Refusal};
pub use policy::{Policy, Rule};
pub use subject::{Subject, Transport};
