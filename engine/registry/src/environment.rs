//! The variables and directories that configuration is looked up by.
//!
//! Nothing else in this crate looks at the process's environment, so that a test, or a caller
//! with rules of its own, gives one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

/// Environment variables, and the directory of the system's configuration.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    etc: PathBuf,
}

impl Environment {
    /// The environment of this process, and `/etc`.
    pub fn of_process() -> Self {
        Self { variables: std::env::vars_os().collect(), etc: PathBuf::from("/etc") }
    }

    /// These variables only, and `etc` in the place of `/etc`.
    pub fn new<N, V>(variables: impl IntoIterator<Item = (N, V)>, etc: impl Into<PathBuf>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self { variables: variables.collect(), etc: etc.into() }
    }

    /// The value of a variable; one that is empty counts as missing.
    pub(crate) fn var(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    /// As [`Self::var`], as an absolute path; a relative one counts as missing where XDG says so.
    fn directory(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    pub(crate) fn etc(&self) -> &Path {
        &self.etc
    }

    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.directory("HOME")
    }

    pub(crate) fn runtime_dir(&self) -> Option<PathBuf> {
        self.directory("XDG_RUNTIME_DIR")
    }

    /// `$XDG_CONFIG_HOME/containers`, else `~/.config/containers`.
    pub(crate) fn user_containers(&self) -> Option<PathBuf> {
        let config =
            self.directory("XDG_CONFIG_HOME").or_else(|| Some(self.home()?.join(".config")))?;
        Some(config.join("containers"))
    }

    /// The first executable file of this name in `PATH`.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let executable = |path: &PathBuf| {
            path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(self.var("PATH")?).map(|folder| folder.join(name)).find(executable)
    }

    /// All variables, for a child process.
    pub(crate) fn variables(&self) -> &BTreeMap<OsString, OsString> {
        &self.variables
    }
}

/// Values may be secrets (a proxy's password): only names are shown.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.variables.keys().collect();
        f.debug_struct("Environment").field("names", &names).field("etc", &self.etc).finish()
    }
}
