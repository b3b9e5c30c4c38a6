//! Hands a launch request to `sarus-shim`, which takes this process's place, or answers.
//!
//! The one module that executes a program.

use std::ffi::OsString;
use std::io::{self, Seek, Write};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sarus_launch::{ExecRequest, REQUEST_SIZE_MAX, Request};
use serde::Serialize;

use crate::error::ENGINE_ERROR;

/// Where the shim is, seen from the directory of this program.
const PLACES: [&str; 2] = ["sarus-shim", "../libexec/sarus/sarus-shim"];

/// Why the shim could not take over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// This program does not know where it is.
    #[error("cannot tell where the `sarus` program is")]
    OwnPath {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// There is no shim.
    #[error("there is no `sarus-shim` at {}", listed(places))]
    NoShim {
        /// Where it was looked for.
        places: Vec<PathBuf>,
    },
    /// The request could not be written down.
    #[error("cannot write the launch request")]
    Write {
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The request is larger than the shim reads.
    #[error("the launch request has {bytes} bytes, at most {REQUEST_SIZE_MAX} are possible")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The shim could not be executed.
    #[error("cannot execute `{}`", path.display())]
    Execute {
        /// The shim.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The shim failed, and has said why.
    #[error("`sarus-shim` ended with status {code}")]
    Refused {
        /// Its exit status.
        code: i32,
    },
}

impl LaunchError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoShim { .. } | Self::Execute { .. } => {
                "the installation is not complete; install `sarus` and `sarus-shim` together"
            }
            Self::TooLarge { .. } => "fewer or shorter variables and arguments help",
            Self::Refused { .. } => return None,
            Self::OwnPath { .. } => "mount /proc",
            Self::Write { .. } => "the limit on the size of files may be too small: `ulimit -f`",
        };
        Some(text.to_owned())
    }
}

fn listed(places: &[PathBuf]) -> String {
    let places: Vec<String> = places.iter().map(|place| format!("`{}`", place.display())).collect();
    places.join(" or ")
}

/// Replaces this process by the shim; returns only when that fails. Standard streams, further
/// descriptors, variables and everything else a process has stay as they are; one descriptor is
/// added, for the request.
pub fn exec(request: &Request) -> LaunchError {
    become_shim("run", request)
}

/// As [`exec`], for one more program in a running container.
pub fn exec_in_container(request: &ExecRequest) -> LaunchError {
    become_shim("exec", request)
}

/// Has the shim explain a run instead of running it; its answer is JSON. Its messages go to
/// standard error.
///
/// # Errors
///
/// [`LaunchError::Refused`] when the shim failed, which has said why.
pub fn explain(request: &Request) -> Result<Vec<u8>, LaunchError> {
    let shim = find_shim()?;
    let descriptor = write(request)?;
    let mut words = std::process::Command::new(&shim);
    words.args(["explain", "--request-fd"]).arg(OsString::from(descriptor.to_string()));
    words.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::inherit());
    log::debug!("executing {words:?}");
    sarus_sys::signals::restore_file_size_limit();
    let output = words.output().map_err(|source| LaunchError::Execute { path: shim, source })?;
    match output.status.code() {
        Some(0) => Ok(output.stdout),
        code => Err(LaunchError::Refused { code: code.unwrap_or(i32::from(ENGINE_ERROR)) }),
    }
}

fn become_shim(command: &str, request: &impl Serialize) -> LaunchError {
    let prepared = find_shim().and_then(|shim| Ok((shim, write(request)?)));
    let (shim, descriptor) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    let mut words = std::process::Command::new(&shim);
    words.args([command, "--request-fd"]).arg(OsString::from(descriptor.to_string()));
    log::debug!("executing {words:?}");
    sarus_sys::signals::restore_file_size_limit();
    let source = words.exec();
    LaunchError::Execute { path: shim, source }
}

/// The shim beside this program, or where packages put it.
fn find_shim() -> Result<PathBuf, LaunchError> {
    let own = std::env::current_exe().map_err(|source| LaunchError::OwnPath { source })?;
    let directory = own.parent().unwrap_or(Path::new("/"));
    let places = PLACES.map(|place| directory.join(place));
    places
        .iter()
        .find(|place| place.is_file())
        .cloned()
        .ok_or_else(|| LaunchError::NoShim { places: places.to_vec() })
}

/// Writes the request into sealed memory, and gives the number of a descriptor that survives
/// `exec`.
fn write(request: &impl Serialize) -> Result<i32, LaunchError> {
    let failed = |source: io::Error| LaunchError::Write { source };
    let json = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    if json.len() > REQUEST_SIZE_MAX {
        return Err(LaunchError::TooLarge { bytes: json.len() });
    }
    let memory = memfd_create("sarus-request", MemfdFlags::ALLOW_SEALING)
        .map_err(|errno| failed(errno.into()))?;
    let mut file = std::fs::File::from(memory);
    file.write_all(&json).and_then(|()| file.rewind()).map_err(failed)?;
    let seals = SealFlags::SEAL | SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK;
    fcntl_add_seals(&file, seals).map_err(|errno| failed(errno.into()))?;
    log::debug!("launch request on descriptor {}: {} bytes", file.as_raw_fd(), json.len());
    Ok(file.into_raw_fd())
}
