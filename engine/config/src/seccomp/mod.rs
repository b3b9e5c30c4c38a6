//! Seccomp profiles: which system calls a container's command may make.
//!
//! The format is the one that Docker, Podman and CRI-O share (`containers-seccomp.json(5)`), or the
//! OCI runtime specification's `linux.seccomp`, which is nearly a part of it. Knows names only: the
//! numbers, and what the kernel is given, are the shim's.

mod errno;
mod parse;

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Fault;
use crate::{document, load as config_load};

pub use parse::KEYS;

/// A profile, as far as it holds for a host and for a command without capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What becomes of calls to which no rule applies.
    pub default: Action,
    /// In the order of the file. Of those that apply to a call, the strictest action counts.
    pub rules: Vec<Rule>,
    /// `SECCOMP_FILTER_FLAG_LOG`: the kernel logs what is refused.
    pub log: bool,
    /// Not `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: the kernel slows the process down to protect it from
    /// itself. As with runc, a file must have `flags` to ask for that.
    pub mitigate_speculation: bool,
}

/// What becomes of some calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Names of system calls; those that the machine does not have are no error.
    pub names: Vec<String>,
    /// What becomes of them.
    pub action: Action,
    /// What must all hold of the arguments.
    pub conditions: Vec<Condition>,
}

/// What the kernel does instead of a call, the strictest first; or the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The process is killed.
    KillProcess,
    /// The thread is killed.
    KillThread,
    /// The process gets `SIGSYS`.
    Trap,
    /// The call fails with this error number, at most 4095.
    Errno(u16),
    /// A tracer decides, and is given this number; without a tracer the call fails with ENOSYS.
    Trace(u16),
    /// The call is made, and logged.
    Log,
    /// The call is made.
    Allow,
}

/// A comparison of an argument, both sides without signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument: 0 to 5.
    pub argument: u8,
    /// The bits of the argument that are compared.
    pub mask: u64,
    /// How they are compared.
    pub operator: Operator,
    /// With what.
    pub value: u64,
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What decides which rules of a file hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host<'a> {
    /// The architecture as Go calls it: `amd64`, `arm64`.
    pub architecture: &'a str,
    /// The kernel's version, its first two numbers.
    pub kernel: (u32, u32),
}

/// Why a profile was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The file could not be read.
    #[error("cannot read seccomp profile `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file's text was refused.
    #[error("seccomp profile `{}` is not valid", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        fault: Fault,
    },
}

impl Profile {
    /// Parses a profile; `path` is named in errors only.
    ///
    /// # Errors
    ///
    /// [`ProfileError::Invalid`] names the first offending key and its line.
    pub fn parse(text: &str, path: &Path, host: Host<'_>) -> Result<Self, ProfileError> {
        parse::profile(text, host)
            .map_err(|fault| ProfileError::Invalid { path: path.to_owned(), fault })
    }

    /// Reads and parses a profile of at most [`crate::FILE_SIZE_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not valid.
    pub fn load(path: &Path, host: Host<'_>) -> Result<Self, ProfileError> {
        let bytes = config_load::read(path)
            .map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
        let text = document::text(&bytes)
            .map_err(|fault| ProfileError::Invalid { path: path.to_owned(), fault })?;
        Self::parse(text, path, host)
    }
}
