//! OCI's names and documents: references, digests, platforms, manifests, image configurations.
//!
//! Pure: no I/O, nothing but parsing and rules. Knows nothing of registries, stores or
//! containers. What comes from a registry is never trusted: every parser refuses rather than
//! guesses, and says what it got and what it expected.

mod digest;
mod document_error;
mod grammar;
mod image_config;
pub mod manifest;
mod platform;
mod reference;
mod reference_error;
mod text;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use document_error::DocumentError;
pub use image_config::{Execution, History, ImageConfig};
pub use platform::{Platform, PlatformError};
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, Reference};
pub use reference_error::ReferenceError;
