//! The record of a running container, and the request to run something more in it.

use serde::{Deserialize, Serialize};

use crate::{RawString, RequestError};

/// The version of the record that this build writes, and the only one it reads.
pub const RECORD_VERSION: u32 = 1;

/// The version of [`ExecRequest`].
pub const EXEC_VERSION: u32 = 1;

/// The name of the memory file that a run's supervisor holds its record in, as
/// `/proc/PID/fd` shows it.
pub const RECORD_NAME: &str = "sarus-run";

/// The largest record that is read, in bytes.
pub const RECORD_SIZE_MAX: usize = crate::REQUEST_SIZE_MAX;

/// What can be known of a running container: kept by its supervisor in memory, so that it is gone
/// when that one is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// The container's id: its name, where it was given one.
    pub id: String,
    /// Process id of the supervisor.
    pub supervisor: i32,
    /// Process id of the container's first process.
    pub process: i32,
    /// When that process was started, in clock ticks since boot.
    pub process_started: u64,
    /// Seconds since 1970 at which the container was started.
    pub created: u64,
    /// The image, as the user named it.
    pub image: String,
    /// Program and arguments.
    pub command: Vec<RawString>,
    /// The variables of the container, `NAME=value`.
    pub env: Vec<RawString>,
    /// The working directory in the container.
    pub workdir: RawString,
    /// Whether the container was made with privilege.
    pub privileged: bool,
}

impl Record {
    /// Parses a record.
    ///
    /// # Errors
    ///
    /// [`RequestError`], the version first.
    pub fn parse(json: &[u8]) -> Result<Self, RequestError> {
        crate::request::parse_versioned(json, RECORD_VERSION)
    }
}

/// What the engine asks of the shim: one more program in a running container of the caller's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// [`EXEC_VERSION`].
    pub version: u32,
    /// Process id of the container's supervisor. The shim looks at the record itself.
    pub supervisor: i32,
    /// Program and arguments; at least one.
    pub args: Vec<RawString>,
    /// `-e`, in the form `NAME=value`; the other variables are the container's.
    #[serde(default)]
    pub env: Vec<RawString>,
    /// `-w`; without it the container's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<RawString>,
    /// `-t`: a pseudo-terminal.
    #[serde(default)]
    pub tty: bool,
    /// As [`crate::Request::verbosity`].
    #[serde(default)]
    pub verbosity: u8,
}

impl ExecRequest {
    /// Parses and checks a request.
    ///
    /// # Errors
    ///
    /// [`RequestError`], the version first.
    pub fn parse(json: &[u8]) -> Result<Self, RequestError> {
        let request: Self = crate::request::parse_versioned(json, EXEC_VERSION)?;
        request.check()?;
        Ok(request)
    }

    /// Checks what the types do not: a command, an absolute path.
    ///
    /// # Errors
    ///
    /// [`RequestError`].
    pub fn check(&self) -> Result<(), RequestError> {
        if self.args.is_empty() {
            return Err(RequestError::NoCommand);
        }
        if let Some(path) = self.workdir.as_ref().filter(|path| !path.as_bytes().starts_with(b"/"))
        {
            let path = path.as_os_str().into();
            return Err(RequestError::NotAbsolute { what: "the working directory", path });
        }
        Ok(())
    }
}
