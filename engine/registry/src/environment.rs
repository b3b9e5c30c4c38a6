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

    /// `~/.config/containers`, which some files are in whatever `XDG_CONFIG_HOME` says.
    fn home_containers(&self) -> Option<PathBuf> {
        Some(self.home()?.join(".config/containers"))
    }

    /// Where a configuration of the user's may be, in order; the first that exists counts.
    fn of_user(&self, name: &str) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> =
            self.user_containers().into_iter().chain(self.home_containers()).collect();
        folders.dedup();
        folders.into_iter().map(|folder| folder.join(name)).collect()
    }

    /// Where the user's signature policy may be, in order; the first that exists counts.
    pub fn user_policy_files(&self) -> Vec<PathBuf> {
        self.of_user("policy.json")
    }

    /// Where the system's signature policy may be; it counts where the user has none.
    pub fn system_policy_file(&self) -> PathBuf {
        self.etc.join("containers/policy.json")
    }

    /// Where the user's registries.d may be, in order; the first that exists counts.
    pub(crate) fn user_registries_d(&self) -> Vec<PathBuf> {
        self.of_user("registries.d")
    }

    /// The files in which other engines remember what short names stand for: root's are the
    /// system's.
    pub(crate) fn short_name_caches(&self) -> Vec<PathBuf> {
        let name = "containers/short-name-aliases.conf";
        if rustix::process::geteuid().is_root() {
            return vec![self.etc.with_file_name("var/cache").join(name)];
        }
        let cache = self.directory("XDG_CACHE_HOME").or_else(|| Some(self.home()?.join(".cache")));
        cache.map(|cache| cache.join(name)).into_iter().collect()
    }

    /// Where credentials are kept when `XDG_RUNTIME_DIR` is not set.
    pub(crate) fn run_dir(&self) -> PathBuf {
        let uid = rustix::process::getuid().as_raw();
        self.etc.with_file_name("run").join(format!("containers/{uid}"))
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
