//! What can be wrong with the files and variables that configure the client.

use std::io;
use std::path::PathBuf;

/// Why a configuration file, a credential or a certificate cannot be used.
///
/// No text here holds a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file exists and cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written; what was there before still is.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A registries configuration breaks TOML's grammar, or has an unknown or mistyped key.
    #[error("`{}`, line {line}: {message}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A file of registries.d is no YAML of the expected form, or contradicts another.
    #[error("`{}`: {message}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A registries configuration is of version 1.
    #[error("`{}`, line {line}: this is the obsolete version 1 of registries.conf", path.display())]
    Version1 {
        /// The file.
        path: PathBuf,
        /// Line of the first section of the old form.
        line: usize,
    },
    /// A credentials file is no JSON of the expected form.
    #[error("`{}`, line {line}: this is no valid credentials file", path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
    },
    /// An entry of a credentials file is not `base64(USER:PASSWORD)`.
    #[error("`{}`: the entry `{key}` holds no valid credentials", path.display())]
    AuthEntry {
        /// The file.
        path: PathBuf,
        /// Key of the entry.
        key: String,
    },
    /// A credential helper could not be executed, failed, or said nothing of use.
    #[error("credential helper `{program}` {what}")]
    CredentialHelper {
        /// Name of the program.
        program: String,
        /// What went wrong.
        what: String,
    },
    /// There is no place for a credentials file.
    #[error("no place to keep credentials: neither `XDG_RUNTIME_DIR` nor `HOME` is set")]
    NoPlace,
    /// A certificate or key file cannot be used.
    #[error("`{}` {what}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A proxy variable holds no address of a proxy. Its value is not shown: it may hold a password.
    #[error("the variable `{variable}` holds no valid proxy address")]
    Proxy {
        /// The variable.
        variable: &'static str,
    },
}

impl ConfigError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Version1 { .. } => {
                "replace `[registries.…]` by `unqualified-search-registries` and `[[registry]]`; \
                 see containers-registries.conf(5)"
                    .to_owned()
            }
            Self::AuthFile { path, .. } | Self::AuthEntry { path, .. } => {
                format!("correct or remove `{}`, then `sarus login REGISTRY`", path.display())
            }
            Self::NoPlace => "set `REGISTRY_AUTH_FILE` to the file to use".to_owned(),
            Self::Certificate { path, .. } => {
                format!("put the right file in the place of `{}`, or remove it", path.display())
            }
            Self::Proxy { .. } => "a proxy is given as `http://HOST:PORT`".to_owned(),
            Self::CredentialHelper { program, .. } => format!(
                "install `{program}`, or remove it from `credHelpers` of the credentials file"
            ),
            _ => return None,
        })
    }
}
