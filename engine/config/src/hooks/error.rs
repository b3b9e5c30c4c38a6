//! Why hook files were refused.

use std::io;
use std::path::PathBuf;

use crate::error::Fault;

/// Why the hooks could not be told. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// A directory of hook files exists and could not be listed.
    #[error("cannot list hook directory `{}`", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A hook file could not be read.
    #[error("cannot read hook file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A hook file was refused.
    #[error("hook file `{}` is not valid", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        fault: Fault,
    },
}

impl HookError {
    /// What the administrator can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Invalid { path, .. } => Some(format!(
                "mend `{}`, or rename it so that it does not end in `.json`; no container starts \
                 until then",
                path.display()
            )),
            Self::List { .. } | Self::Read { .. } => None,
        }
    }
}
