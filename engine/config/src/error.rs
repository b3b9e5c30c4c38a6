//! Why a configuration was refused.

use std::io;
use std::path::PathBuf;

/// What is wrong in a JSON file, and where: line (from 1) and key, the latter as the way from the
/// outermost object, e.g. `siteMounts[0].type`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Not JSON.
    #[error("line {line}: {reason}")]
    Syntax {
        /// Where the parser stopped.
        line: usize,
        /// The parser's words.
        reason: String,
    },
    /// Larger than [`crate::FILE_SIZE_MAX`].
    #[error("the file is larger than {} bytes", crate::FILE_SIZE_MAX)]
    TooLarge,
    /// Nested deeper than [`crate::DEPTH_MAX`].
    #[error("line {line}: `{key}` is nested deeper than {} levels", crate::DEPTH_MAX)]
    TooDeep {
        /// Line of the value.
        line: usize,
        /// Way to it.
        key: String,
    },
    /// A key that has no meaning.
    #[error("line {line}: unknown key `{key}`{}", near(nearest.as_ref()))]
    UnknownKey {
        /// Line of the key.
        line: usize,
        /// Way to it.
        key: String,
        /// The known key that resembles it, in the same notation.
        nearest: Option<String>,
    },
    /// A key given twice in one object.
    #[error("line {line}: `{key}` was already given on line {first}")]
    Twice {
        /// Line of the second.
        line: usize,
        /// Way to it.
        key: String,
        /// Line of the first.
        first: usize,
    },
    /// A key that must be given is not.
    #[error("line {line}: `{key}` is missing")]
    Missing {
        /// Line on which the object starts that should have the key.
        line: usize,
        /// Way to the key.
        key: String,
    },
    /// A value of a wrong type, or outside its range.
    #[error("line {line}: `{key}` is {given}, expected {expected}")]
    Value {
        /// Line of the value.
        line: usize,
        /// Way to it.
        key: String,
        /// The value, or its type when it is a list or an object.
        given: String,
        /// What is accepted.
        expected: String,
    },
}

/// The end of the text of `UnknownKey`.
fn near(nearest: Option<&String>) -> String {
    nearest.map(|key| format!("; the nearest known key is `{key}`")).unwrap_or_default()
}

/// Why a configuration, or a file that it names, was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file's text was refused.
    #[error("configuration `{}` is not valid", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        fault: Fault,
    },
    /// A path that must be trusted could not be looked at.
    #[error("cannot check who may change `{}`", path.display())]
    Unchecked {
        /// The file or the directory above it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody other than root can change what root is to trust.
    #[error(
        "`{}` is not safe: `{}` {problem}", path.display(), offender.display()
    )]
    Untrusted {
        /// The path that was to be checked.
        path: PathBuf,
        /// It, or the directory or symbolic link on the way to it.
        offender: PathBuf,
        /// Owner or mode, got and expected.
        problem: String,
        /// What mends it.
        remedy: String,
    },
}

impl ConfigError {
    /// What the administrator or user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } | Self::Unchecked { .. } => None,
            Self::Invalid { .. } => Some(
                "every key is described in CONFIGURATION.md of the documentation and in \
                 `sarus.schema.json`"
                    .to_owned(),
            ),
            Self::Untrusted { remedy, .. } => Some(format!(
                "{remedy}: with privilege, Sarus uses only what root alone can change"
            )),
        }
    }
}
