//! OCI hooks 1.0.0: which programs the site runs around a container, and when.
//!
//! The format is that of `oci-hooks(5)` of the containers ecosystem, with the stage `precreate`
//! besides. Knows no hook by name, and starts none.

mod decide;
mod error;
mod load;
mod parse;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;

pub use decide::{Decision, Occasion, select};
pub use error::HookError;
pub use load::{Directories, files, load, paths_to_check};
pub use parse::{KEYS, REGEX_SIZE_MAX};

/// One hook file.
#[derive(Debug, Clone)]
pub struct Hook {
    /// The file that was parsed, for messages.
    pub file: PathBuf,
    /// `hook.path`: the program, absolute.
    pub path: PathBuf,
    /// `hook.args`: its arguments, the program's name included; empty where the file has none.
    pub args: Vec<String>,
    /// `hook.env`: its variables, each `NAME=value`.
    pub env: Vec<String>,
    /// `hook.timeout`: time after which it is killed, whole seconds, never zero; without one it may
    /// take as long as it likes.
    pub timeout: Option<Duration>,
    /// `stages`: when it runs; at least one.
    pub stages: BTreeSet<Stage>,
    /// `sarus.plan`: the program understands `--plan`, and does nothing then but print what it
    /// would do. An extension that other engines ignore.
    pub plans: bool,
    pub(crate) when: When,
}

/// The points of a container's life at which hooks run, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Before the runtime: the bundle's configuration on standard input, the edited one on
    /// standard output. An extension that Podman has too.
    Precreate,
    /// Deprecated by the specification, needed by NVIDIA's legacy hook.
    Prestart,
    /// In the runtime's namespaces, after those of the container were made.
    CreateRuntime,
    /// In the container's namespaces, before its root is entered.
    CreateContainer,
    /// In the container, before the command: the program is looked up inside.
    StartContainer,
    /// After the command was started.
    Poststart,
    /// After the container was deleted.
    Poststop,
}

impl Stage {
    /// All, in order.
    pub const ALL: [Self; 7] = [
        Self::Precreate,
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// The name in hook files and in the bundle.
    pub fn name(self) -> &'static str {
        match self {
            Self::Precreate => "precreate",
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Conditions that must all hold; at least one is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct When {
    pub(crate) always: Option<bool>,
    pub(crate) has_bind_mounts: Option<bool>,
    /// Of each pair, one annotation must match both key and value.
    pub(crate) annotations: Vec<(Regex, Regex)>,
    /// One of them must match, unless there are none.
    pub(crate) commands: Vec<Regex>,
}
