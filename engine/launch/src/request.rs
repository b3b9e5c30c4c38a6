//! The launch request and its checks.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::RawString;

/// The version this build writes, and the only one it reads.
pub const REQUEST_VERSION: u32 = 2;

/// The largest request the shim reads, in bytes.
pub const REQUEST_SIZE_MAX: usize = 16 << 20;

/// What the engine asks of the shim: one container, from one image file.
///
/// Nothing in it is trusted: paths are opened with the user's own rights, and what the site
/// decides (hooks, site mounts, policies) is not in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`REQUEST_VERSION`] of the engine that wrote it.
    pub version: u32,
    /// `--name`: the container's id; without one the shim makes an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image.
    pub image: Image,
    /// What runs in it.
    pub command: Command,
    /// The caller's names, as the host knows them; without it the shim makes some up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountNames>,
    /// The variables of the caller, in the form `NAME=value`. They travel here, since some
    /// (`LD_LIBRARY_PATH`) vanish on the way into a setuid program.
    pub host_env: Vec<RawString>,
    /// `-e` and `--env-file`, in the order given, in the form `NAME=value`.
    #[serde(default)]
    pub env: Vec<RawString>,
    /// `--mount`, `-v` and `--tmpfs`, in the order in which they are made.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// `--device`, in the order given.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// `--annotation`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Namespaces beside the mount namespace.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// `--read-only`: the root file system refuses writes; mounts in it do not.
    #[serde(default)]
    pub read_only: bool,
    /// `--writable-dir`: the directory on disk that holds the writable layer instead of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable_dir: Option<RawString>,
    /// `--init`: an init is process 1 of the container, reaps and forwards signals.
    #[serde(default)]
    pub init: bool,
    /// `-t`: a pseudo-terminal is the command's standard input, output and error.
    #[serde(default)]
    pub tty: bool,
    /// `--runtime`: a name (`runc`, `crun`) or an absolute path; without it the site's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Absolute path of the engine's program, which unpacks an image where no mount of it works.
    /// Used in rootless runs only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<RawString>,
    /// How much to log on standard error: 0 nothing but errors, 1 what was chosen, 2 all.
    #[serde(default)]
    pub verbosity: u8,
}

/// What the host's user database says of the caller, for the container's `passwd` and `group`.
///
/// The engine looks it up, since a data base may need libraries that the shim does not load.
/// Nothing depends on it being true: the ids are the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountNames {
    /// Login name.
    pub name: String,
    /// Full name and such.
    #[serde(default)]
    pub gecos: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
    /// Names of the caller's groups by id; a group without one gets one made up.
    #[serde(default)]
    pub groups: BTreeMap<u32, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The image of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Absolute path of the squashfs file.
    pub squashfs: RawString,
    /// Byte of the file at which the image begins: 0 but in a SIF file.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset: u64,
    /// As the user named it, for messages and annotations.
    pub name: String,
    /// The digest of the platform's manifest; absent for an image given by path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `Env` of the image's configuration.
    #[serde(default)]
    pub env: Vec<String>,
    /// `WorkingDir` of the image's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
}

/// The command of a request, after entrypoint and default arguments were applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments; at least one. A program without `/` is looked up in the
    /// container's `PATH`.
    pub args: Vec<RawString>,
    /// `--workdir`: absolute, made when absent. Without it the image's, else `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<RawString>,
}

/// One mount that the user asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Absolute path in the container.
    pub destination: RawString,
    /// What is mounted.
    pub source: MountSource,
    /// The mount refuses writes.
    #[serde(default)]
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or directory of the host, with what is mounted below it.
    Bind {
        /// Absolute path on the host.
        path: RawString,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Its limit in bytes; without one the kernel's default.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        /// Mode of its root directory; without one 0o1777, as Docker does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode: Option<u32>,
        /// Files in it cannot be executed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        no_exec: bool,
    },
}

/// A device of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Absolute path on the host.
    pub source: RawString,
    /// Absolute path in the container.
    pub destination: RawString,
    /// What the container may do with it; never more than the host allows.
    pub access: DeviceAccess,
}

/// Rights on a device, as in the device cgroup: read, write, make the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceAccess {
    /// `r`
    pub read: bool,
    /// `w`
    pub write: bool,
    /// `m`
    pub mknod: bool,
}

impl DeviceAccess {
    /// `rwm`, the default of `--device`.
    pub const ALL: Self = Self { read: true, write: true, mknod: true };

    /// Parses a non-empty selection of `r`, `w` and `m`, each once, in any order.
    pub fn parse(text: &str) -> Option<Self> {
        let mut access = Self { read: false, write: false, mknod: false };
        for letter in text.chars() {
            let right = match letter {
                'r' => &mut access.read,
                'w' => &mut access.write,
                'm' => &mut access.mknod,
                _ => return None,
            };
            if std::mem::replace(right, true) {
                return None;
            }
        }
        (!text.is_empty()).then_some(access)
    }
}

/// Namespaces that a run gets besides its own mount namespace. The host's otherwise: MPI needs
/// them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespaces {
    /// `--pid=private`
    #[serde(default)]
    pub pid: bool,
}

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not the JSON of a request.
    #[error("the launch request is not valid")]
    Syntax {
        #[source]
        /// Where and why.
        source: serde_json::Error,
    },
    /// Written by an engine of another version.
    #[error(
        "what one program of Sarus tells another has version {given}, and this one reads version {expected}"
    )]
    Version {
        /// The version that was read.
        given: u32,
        /// The version that this build reads.
        expected: u32,
    },
    /// A path that must be absolute is not.
    #[error("{what} `{}` is not an absolute path", path.display())]
    NotAbsolute {
        /// Which path.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// There is nothing to run.
    #[error("the launch request names no command")]
    NoCommand,
    /// A name that cannot be a container's id.
    #[error(
        "`{name}` cannot be a container's name: letters, digits, `_`, `.`, `-` only, a letter or digit first, at most 128"
    )]
    Name {
        /// The name given.
        name: String,
    },
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Looks at the version before anything else, so that who is of another version is told so.
pub(crate) fn parse_versioned<T: serde::de::DeserializeOwned>(
    json: &[u8],
    version: u32,
) -> Result<T, RequestError> {
    let syntax = |source| RequestError::Syntax { source };
    let Versioned { version: given } = serde_json::from_slice(json).map_err(syntax)?;
    if given != version {
        return Err(RequestError::Version { given, expected: version });
    }
    serde_json::from_slice(json).map_err(syntax)
}

impl Request {
    /// Parses and checks a request.
    ///
    /// # Errors
    ///
    /// [`RequestError`]: the version is looked at first, so that an engine of another version is
    /// told so instead of being told of an unknown field.
    pub fn parse(json: &[u8]) -> Result<Self, RequestError> {
        let request: Self = parse_versioned(json, REQUEST_VERSION)?;
        request.check()?;
        Ok(request)
    }

    /// The value of a variable of the caller's.
    pub fn host_variable(&self, name: &str) -> Option<RawString> {
        let of = |entry: &RawString| {
            let value = entry.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(RawString::from(std::ffi::OsString::from_vec(value.to_vec())))
        };
        self.host_env.iter().find_map(of)
    }

    /// Checks what the types do not: absolute paths, a command, the name.
    ///
    /// # Errors
    ///
    /// The first violation found.
    pub fn check(&self) -> Result<(), RequestError> {
        if self.command.args.is_empty() {
            return Err(RequestError::NoCommand);
        }
        if let Some(name) = &self.name
            && !is_container_name(name)
        {
            return Err(RequestError::Name { name: name.clone() });
        }
        self.paths().try_for_each(|(what, path)| {
            if path.as_bytes().starts_with(b"/") {
                Ok(())
            } else {
                Err(RequestError::NotAbsolute { what, path: path.as_os_str().into() })
            }
        })
    }

    fn paths(&self) -> impl Iterator<Item = (&'static str, &RawString)> {
        let image = std::iter::once(("the image file", &self.image.squashfs));
        let workdir = self.command.workdir.iter().map(|path| ("the working directory", path));
        let writable = self.writable_dir.iter().map(|path| ("the writable directory", path));
        let mounts = self.mounts.iter().flat_map(|mount| {
            let source = match &mount.source {
                MountSource::Bind { path } => Some(("the mount source", path)),
                MountSource::Tmpfs { .. } => None,
            };
            source.into_iter().chain([("the mount destination", &mount.destination)])
        });
        let devices = self.devices.iter().flat_map(|device| {
            [("the device", &device.source), ("the device's destination", &device.destination)]
        });
        image.chain(workdir).chain(writable).chain(mounts).chain(devices)
    }
}

/// The grammar of Docker's container names, which both runtimes accept as an id.
pub fn is_container_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && name.len() <= 128
}
