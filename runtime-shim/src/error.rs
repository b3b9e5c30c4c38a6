//! What can go wrong, said once, with what to do.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::blame::Blame;

/// Why a container was not started, or not waited for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    #[error("`sarus-shim` is started by `sarus run`, not by hand")]
    Usage,
    #[error("cannot read the launch request")]
    ReadRequest { source: io::Error },
    #[error("cannot use the launch request")]
    Request { source: sarus_launch::RequestError },
    #[error("cannot use the configuration")]
    Config { source: sarus_config::ConfigError },
    #[error("cannot use the hooks")]
    Hooks { source: sarus_config::hooks::HookError },
    #[error("cannot use the seccomp profile")]
    SeccompProfile { source: sarus_config::seccomp::ProfileError },
    #[error("seccomp profile `{}` compiles to {size} instructions, more than the kernel's {max}", path.display())]
    SeccompSize { path: PathBuf, size: usize, max: usize },
    #[error("cannot {what}")]
    Prepare { what: &'static str, source: io::Error },
    #[error("cannot give up the privileges of the setuid program")]
    Privileges { source: io::Error },
    #[error("cannot make a user namespace: {because}")]
    NoUserNamespace { because: String, advice: String, source: io::Error },
    #[error("no empty directory to build the container on; looked at {}", looked_at.join(", "))]
    NoBase { looked_at: Vec<String> },
    #[error("cannot open the image `{}`", path.display())]
    OpenImage { path: PathBuf, source: io::Error },
    #[error("`{}` is not a squashfs image", path.display())]
    NotAnImage { path: PathBuf },
    #[error("cannot mount the image `{}` with {how}", path.display())]
    MountImage { path: PathBuf, how: &'static str, said: String, source: io::Error },
    #[error("cannot mount the image `{}`: the node has no FUSE, and `imageMount` asks for it", path.display())]
    NoFuse { path: PathBuf, why: String },
    #[error("cannot unpack the image `{}`", path.display())]
    Unpack { path: PathBuf, said: String },
    #[error("cannot mount the writable layer over the image")]
    Overlay { said: String, source: io::Error },
    #[error("cannot mount a writable layer in `{}` over the image", directory.display())]
    OverlayOnDisk { directory: PathBuf, said: String, source: io::Error },
    #[error("cannot make `{place}` in the container")]
    Rootfs { place: String, source: io::Error },
    #[error("cannot open `{}`, which is to be mounted in the container", path.display())]
    MountSource { path: PathBuf, source: io::Error },
    #[error("cannot mount on `{}` in the container", path.display())]
    MountTarget { path: PathBuf, source: io::Error },
    #[error("mounting on `{}` is not allowed: {because}", path.display())]
    MountRefused { path: PathBuf, because: String },
    #[error("`{}` is not a device", path.display())]
    NotADevice { path: PathBuf },
    #[error("cannot mount `{}` on `{}` in the container, as a hook asks", path.display(), destination.display())]
    HookMount { path: PathBuf, destination: PathBuf, source: io::Error },
    #[error("no hook gave the container the device `{device}`")]
    NoCdiDevice { device: String },
    #[error("cannot use the working directory `{}`", path.display())]
    Workdir { path: PathBuf, source: io::Error },
    #[error("cannot make a directory for the run in `{}`", path.display())]
    Scratch { path: PathBuf, source: io::Error },
    #[error("a container named `{name}` runs already")]
    NameTaken { name: String, pid: Option<i32> },
    #[error("the OCI runtime `{}` is not the site's choice", path.display())]
    RuntimeRefused { path: PathBuf },
    #[error("the annotation `{key}` is for the OCI runtime, and not for users to set")]
    AnnotationRefused { key: String },
    #[error("there is no running container of yours that process {pid} supervises")]
    NoContainer { pid: i32, source: io::Error },
    #[error("no OCI runtime found; looked for {}", looked_for.join(", "))]
    NoRuntime { looked_for: Vec<String> },
    #[error("cannot find `sarus-entry`, the first program inside a container, at `{}`", path.display())]
    NoEntry { path: PathBuf, source: io::Error },
    #[error("cannot start a command under the {what} `{name}`")]
    Label { what: &'static str, name: String, source: io::Error },
    #[error("cannot execute the OCI runtime `{}`", path.display())]
    ExecuteRuntime { path: PathBuf, source: io::Error },
    #[error("the OCI runtime `{runtime}` could not start the container: {said}")]
    Runtime { runtime: String, said: String },
    #[error("{which} failed: {how}")]
    Hook { which: String, how: String, said: String, advice: Option<String> },
    #[error("cannot start `{program}` in the container: {because}")]
    Command { program: String, because: String, code: u8 },
    #[error("the container could not be entered: cannot {step}")]
    Entry { step: &'static str, source: io::Error },
    /// The message has been printed by the process that failed.
    #[error("")]
    Said { code: u8 },
}

impl ShimError {
    /// 126 and 127 for a command that cannot be executed or was not found, else 125.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Command { code, .. } | Self::Said { code } => *code,
            _ => crate::ENGINE_FAILED,
        }
    }

    /// What to do about it.
    fn hint(&self) -> Option<String> {
        if let Some(limit) = self.limit_met() {
            return Some(limit.to_owned());
        }
        match self {
            Self::NoUserNamespace { advice, .. } | Self::Hook { advice: Some(advice), .. } => {
                Some(advice.clone())
            }
            Self::Config { source } => source.hint(),
            Self::Rootfs { source, .. } => hint_on_limits("", source).map(str::to_owned),
            Self::Prepare { what, source } => hint_on_limits(what, source).map(str::to_owned),
            Self::Hooks { source } => source.hint(),
            Self::Workdir { .. } => Some(
                "`-w` (`--workdir`) names a directory of the container, in the place of the image's own, which `sarus inspect` shows"
                    .to_owned(),
            ),
            Self::NoFuse { why, .. } => {
                Some(format!("{why}; or set `imageMount` to `auto` in sarus.json"))
            }
            Self::NameTaken { pid, .. } => {
                let who = pid.map_or(String::new(), |pid| format!(" (process {pid})"));
                Some(format!(
                    "`sarus ps` lists it{who}; choose another `--name`, or `sarus kill` it"
                ))
            }
            Self::HookMount { .. } | Self::NoCdiDevice { .. } | Self::Hook { .. } => {
                self.hint_on_hooks().map(str::to_owned)
            }
            _ => self.fixed_hint().map(str::to_owned),
        }
    }

    /// Which limit of the caller's stopped the engine or the runtime.
    fn limit_met(&self) -> Option<&'static str> {
        if let Self::Runtime { said, .. } = self {
            let said = said.to_lowercase();
            let met = [
                (libc::EMFILE, "too many open files"),
                (libc::EAGAIN, "resource temporarily unavailable"),
            ];
            return met
                .into_iter()
                .find(|(_, words)| said.contains(words))
                .and_then(|(errno, _)| limit_of(errno));
        }
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let errno = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
            if errno == Some(libc::EMFILE) {
                return limit_of(libc::EMFILE);
            }
            source = error.source();
        }
        None
    }

    fn hint_on_hooks(&self) -> Option<&'static str> {
        match self {
            Self::HookMount { .. } => Some(
                "check that the path exists on this node; `sarus run --explain …` shows which hook asks for it",
            ),
            Self::NoCdiDevice { .. } => Some(
                "`sarus hooks` lists the hooks: the one for CDI devices must be configured, and run for this container",
            ),
            Self::Hook { .. } => {
                Some("ask who administers the hook; `sarus hooks` shows where it is configured")
            }
            _ => None,
        }
    }

    /// Advice that does not depend on the case.
    fn fixed_hint(&self) -> Option<&'static str> {
        let hint = match self {
            Self::Scratch { .. } => "`tempDir` in sarus.json, or `--writable-dir`, names where",
            Self::RuntimeRefused { .. } => {
                "here the runtime runs as root: `--runtime` takes `runc` or `crun`, the rest is in the site's sarus.json"
            }
            Self::AnnotationRefused { .. } => "leave it away, or ask the administrator for a hook",
            Self::NoContainer { .. } => "`sarus ps` lists those that run",
            Self::Usage => "see `sarus help run`",
            Self::SeccompProfile { .. } => {
                "`seccompProfile` in sarus.json names it; its format is that of containers-seccomp.json(5), see CONFIGURATION.md"
            }
            Self::SeccompSize { .. } => "compare fewer arguments, or join rules for the same calls",
            Self::Request { .. } => "install `sarus` and `sarus-shim` of the same version",
            Self::NoBase { .. } => {
                "set `OCIBundleDir` in sarus.json to an empty directory that every node has"
            }
            Self::OpenImage { .. } => "pull the image again, or check the path and its permissions",
            Self::NotAnImage { .. } => {
                "give a squashfs file, or a reference as `sarus images` lists them"
            }
            Self::MountImage { .. } => {
                "`sarus --debug run …` shows each step; `imageMount` in sarus.json chooses another way to mount"
            }
            Self::Unpack { .. } => {
                "install squashfuse (`squashfuse_ll`) on the node, or point `tempDir` in sarus.json to a disk with more room"
            }
            Self::Overlay { .. } => {
                "the kernel must permit overlayfs in user namespaces (Linux 5.11 or later)"
            }
            Self::OverlayOnDisk { .. } => {
                "a local file system with extended attributes can have it (ext4, XFS, tmpfs), but not NFS, Lustre or FUSE: give another `--writable-dir`, `writable.directory` or `tempDir`"
            }
            Self::MountSource { .. } => {
                "check that the path exists on this node and that you may read it"
            }
            Self::MountTarget { .. } => {
                "name a path that is in the image, or that can be made there; in a directory of the host it must exist"
            }
            Self::NotADevice { .. } => {
                "`--device` takes a device node of the host; use `-v` for files and directories"
            }
            Self::NoRuntime { .. } => {
                "install runc or crun, or set `runcPath` or `crunPath` in sarus.json"
            }
            Self::Label { .. } => {
                "the node's kernel must have AppArmor or SELinux switched on and know the name that sarus.json gives (`apparmorProfile`, `selinuxLabel`); ask the administrator"
            }
            Self::NoEntry { .. } => "install `sarus-entry` beside `sarus-shim`",
            Self::Runtime { .. } => {
                "`sarus --debug run …` shows each step; `--runtime` chooses another runtime"
            }
            Self::Command { code: 127, .. } => {
                "check the spelling, the container's PATH, and that the image has the program"
            }
            Self::Command { .. } => {
                "name a file of the image that is executable, and built for this machine"
            }
            _ => return None,
        };
        Some(hint)
    }

    /// Words of another program or of the kernel, which belong to the error as its cause.
    fn said(&self) -> Option<&str> {
        match self {
            Self::MountImage { said, .. }
            | Self::Unpack { said, .. }
            | Self::Overlay { said, .. }
            | Self::OverlayOnDisk { said, .. }
            | Self::Hook { said, .. } => Some(said.as_str()).filter(|said| !said.is_empty()),
            _ => None,
        }
    }
}

impl From<Blame> for ShimError {
    fn from(blame: Blame) -> Self {
        let said = blame.words.causes.join("\n  caused by: ");
        Self::Hook { which: blame.which, how: blame.how, said, advice: blame.words.hint }
    }
}

/// The whole message: error, causes, hint, a line each. Empty for what has been said.
pub(crate) fn report(error: &ShimError) -> String {
    if matches!(error, ShimError::Said { .. }) {
        return String::new();
    }
    let mut lines = vec![format!("error: {error}")];
    lines.extend(error.said().map(|said| format!("  caused by: {said}")));
    let mut cause = error.source();
    while let Some(next) = cause {
        lines.push(format!("  caused by: {next}"));
        cause = next.source();
    }
    lines.extend(error.hint().map(|hint| format!("hint: {hint}")));
    lines.join("\n")
}

/// The step that makes a mount that is nowhere yet, which the kernel counts as a namespace.
pub(crate) const MEMORY: &str = "make a file system in memory";

/// What a step of the preparation wants that the caller's limits do not give it: `getrlimit(2)`,
/// `namespaces(7)`; or that another user took.
fn hint_on_limits(what: &str, error: &io::Error) -> Option<&'static str> {
    let Some(errno) = error.raw_os_error() else {
        let is_taken = error.kind() == io::ErrorKind::PermissionDenied;
        return is_taken.then_some("its owner or an administrator can remove it");
    };
    match errno {
        libc::ENOSPC if what == MEMORY => Some(
            "a limit of the node on mounts may be reached: `sysctl user.max_mnt_namespaces fs.mount-max`; ask the administrator",
        ),
        _ => limit_of(errno),
    }
}

/// Which of the caller's limits an error number speaks of: `getrlimit(2)`.
fn limit_of(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EMFILE => Some("the limit of open files may be too small: `ulimit -n`"),
        libc::EAGAIN => Some("the limit of processes may be too small: `ulimit -u`"),
        _ => None,
    }
}

/// Names a step of the preparation in an error.
pub(crate) fn cannot(what: &'static str) -> impl Fn(io::Error) -> ShimError {
    move |source| ShimError::Prepare { what, source }
}
