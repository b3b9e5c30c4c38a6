//! Which OCI runtime, and its command line.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sarus_config::{Config, Runtime as Choice};
use sarus_launch::Request;

use crate::construct::Plan;
use crate::error::ShimError;

/// Where runtimes are looked for. Not the caller's `PATH`: what runs as root is the site's.
const DIRECTORIES: [&str; 5] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"];

/// A runtime that was found.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    /// Absolute path.
    pub(crate) path: PathBuf,
    /// Takes crun's options; else runc's.
    pub(crate) is_crun: bool,
}

/// Finds the runtime: the user's choice, else the site's, else the first that is there, crun
/// before runc since it starts faster.
pub(crate) fn find(config: &Config, request: &Request) -> Result<Runtime, ShimError> {
    let choice = match request.runtime.as_deref() {
        None => config.runtime.clone(),
        Some("runc") => Choice::Runc,
        Some("crun") => Choice::Crun,
        Some("auto") => Choice::Auto,
        Some(path) => Choice::Path(PathBuf::from(path)),
    };
    let crun = || candidates("crun", config.crun_path.as_deref());
    let runc = || candidates("runc", config.runc_path.as_deref());
    let candidates = match choice {
        Choice::Auto => [crun(), runc()].concat(),
        Choice::Runc => runc(),
        Choice::Crun => crun(),
        Choice::Path(path) => vec![path],
    };
    let found = candidates.iter().find(|path| is_program(path)).cloned();
    let Some(path) = found else {
        let looked_for = candidates.iter().map(|path| format!("`{}`", path.display())).collect();
        return Err(ShimError::NoRuntime { looked_for });
    };
    let is_crun = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"crun"));
    log::info!("the OCI runtime is `{}`", path.display());
    Ok(Runtime { path, is_crun })
}

fn candidates(name: &str, configured: Option<&Path>) -> Vec<PathBuf> {
    match configured {
        Some(path) => vec![path.to_owned()],
        None => DIRECTORIES.iter().map(|directory| Path::new(directory).join(name)).collect(),
    }
}

fn is_program(path: &Path) -> bool {
    path.is_absolute()
        && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
        && path.is_file()
}

impl Runtime {
    /// The arguments that start the container of the bundle at `base` and return, with `--`
    /// options first: state and log are in `base` too.
    pub(crate) fn arguments(&self, base: &Path, preserved: i32, plan: &Plan<'_>) -> Vec<CString> {
        let mut arguments = vec![self.path.as_os_str().as_bytes().to_vec()];
        arguments.extend(self.global_options(base, path_in(base, "log")));
        arguments.extend(["run", "--detach", "--preserve-fds"].map(Into::into));
        arguments.push(preserved.to_string().into());
        arguments.extend(["--bundle".into(), path_in(base, "bundle"), plan.id.clone().into()]);
        c_strings(arguments)
    }

    /// The arguments that run the `poststop` hooks and forget the container.
    pub(crate) fn delete_arguments(&self, base: &Path, plan: &Plan<'_>) -> Vec<CString> {
        let mut arguments = vec![self.path.as_os_str().as_bytes().to_vec()];
        // runc says in its log alone that such a hook failed.
        let log = if self.is_crun { path_in(base, "log") } else { "/proc/self/fd/2".into() };
        arguments.extend(self.global_options(base, log));
        arguments.extend(["delete", "--force", &plan.id].map(Into::into));
        c_strings(arguments)
    }

    fn global_options(&self, base: &Path, log: Vec<u8>) -> Vec<Vec<u8>> {
        let mut options = vec!["--root".into(), path_in(base, "state"), "--log".into(), log];
        if self.is_crun {
            options.push("--cgroup-manager=disabled".into());
        } else {
            // Means the cgroups only: to go on where they are read-only.
            options.extend(["--rootless", "true"].map(Into::into));
        }
        options
    }

    /// The variables of the runtime: none of the caller's.
    pub(crate) fn environment() -> Vec<CString> {
        c_strings(vec![format!("PATH={}", sarus_launch::DEFAULT_PATH).into()])
    }
}

fn path_in(base: &Path, name: &str) -> Vec<u8> {
    base.join(name).as_os_str().as_bytes().to_vec()
}

/// Strings that hold no NUL byte: paths that exist, numbers, names that were checked.
pub(crate) fn c_strings(strings: Vec<Vec<u8>>) -> Vec<CString> {
    strings.into_iter().filter_map(|text| CString::new(text).ok()).collect()
}
