//! A blocking client for registries of container images.
//!
//! Speaks the registry API v2 (OCI distribution specification) and obeys the containers
//! ecosystem's own files: `registries.conf`, `auth.json`, `certs.d`. What comes from a registry
//! is verified against a digest before anybody sees it, or by the reader that hands it out.
//! Knows nothing of stores, of squashfs, or of terminals. Only [`Options::notify`] tells what
//! goes on.

mod blob;
mod certificates;
mod challenge;
mod client;
mod config_error;
mod credential_program;
mod credentials;
mod credentials_file;
mod environment;
mod error;
mod failure;
mod hints;
mod login;
mod options;
mod proxy;
mod registries;
mod registries_d;
mod registries_file;
mod resolve;
mod session;
mod signatures;
mod tls;
mod transport;

pub use client::{Client, Partial, Resolved};
pub use config_error::ConfigError;
pub use credentials::Credentials;
pub use environment::Environment;
pub use error::{Attempt, Cause, RegistryError};
pub use login::{Saved, log_out, save};
pub use options::{Notice, Options, Retry, Sleeper, SystemSleeper};
pub use signatures::Signatures;
