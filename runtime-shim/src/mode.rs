//! Rootless or privileged, and the namespaces of each.

use std::os::fd::OwnedFd;
use std::path::Path;

use sarus_config::{Config, ImageMount};
use sarus_launch::Request;
use sarus_sys::namespace::{self, IdMap};

use crate::caller::Caller;
use crate::error::{ShimError, cannot};
use crate::image::ImageFile;
use crate::policy;

/// How the container is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In user namespaces of the caller's own.
    Rootless,
    /// With the privileges of root: the kernel mounts the image.
    Privileged,
}

/// The privileged mode where the process may mount and site and node permit the kernel's mount of
/// this image, else rootless, and why. `image` was opened with the caller's rights, if that was
/// possible.
pub(crate) fn choose(
    config: &Config,
    run: (&Caller, &Request),
    image: Option<&ImageFile>,
) -> (Mode, String) {
    let (caller, request) = run;
    let why_not = if !rustix::process::geteuid().is_root() {
        Some("not root".to_owned())
    } else if !may_mount() {
        Some("no capability to mount".to_owned())
    } else if !matches!(config.image_mount, ImageMount::Auto | ImageMount::Kernel) {
        Some("`imageMount` asks for another way than the kernel's".to_owned())
    } else if !has_loop_devices() {
        Some("no /dev/loop-control".to_owned())
    } else if image.is_some_and(|image| image.offset() != 0) {
        // Where in the file is the user's word, so nobody vouched for what the kernel would read.
        Some("the image is a part of another file (SIF)".to_owned())
    } else if caller.is_setuid()
        && (request.writable_dir.is_some() || config.writable.directory.is_some())
    {
        // What root made there the user could not remove, and others could put links in its way.
        Some("the writable layer is to be on disk".to_owned())
    } else if let Some(image) = image {
        policy::refusal(config, caller, image)
    } else {
        Some("the image can be opened by none but the user".to_owned())
    };
    match why_not {
        None => {
            log::info!("mode: privileged");
            let who =
                if caller.is_setuid() { "`sarus-shim` is setuid root" } else { "root runs it" };
            (Mode::Privileged, format!("{who}, and the kernel may mount the image"))
        }
        Some(why) => {
            log::info!("mode: rootless ({why})");
            (Mode::Rootless, why)
        }
    }
}

/// Asked of the effective user: a setuid program's real one has no access.
fn has_loop_devices() -> bool {
    let (access, flags) = (rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::EACCESS);
    rustix::fs::accessat(rustix::fs::CWD, "/dev/loop-control", access, flags).is_ok()
}

fn may_mount() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| {
        sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN)
            && namespace::is_initial_user()
    })
}

/// Gives the process a mount namespace of its own.
pub(crate) fn enter_privileged() -> Result<(), ShimError> {
    namespace::new_mount_namespace().map_err(cannot("make a mount namespace"))?;
    sarus_sys::mount::receive_only().map_err(cannot("separate the mounts from the host's"))
}

/// The namespace in which the user has their own ids, for the command (rootless).
pub(crate) fn users_own_namespace(caller: &Caller) -> Result<OwnedFd, ShimError> {
    let uid = IdMap { inside: caller.uid, outside: 0 };
    let gid = IdMap { inside: caller.gid, outside: 0 };
    namespace::empty_user_namespace(uid, gid).map_err(no_user_namespace)
}

/// Switches that forbid user namespaces: file, the value that does, what to ask for.
const SWITCHES: [(&str, &str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces to a few thousand"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone to 1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns to 0, or to load an AppArmor profile that permits `userns` for `sarus-shim`",
    ),
];

pub(crate) fn no_user_namespace(source: std::io::Error) -> ShimError {
    if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::EAGAIN)) {
        // The caller's own limits, not the kernel's will.
        return cannot("make a user namespace")(source);
    }
    let forbidding = SWITCHES.iter().find(|(file, value, _)| {
        fs_read(Path::new(file)).is_some_and(|text| text.trim() == *value)
    });
    let is_limit = source.raw_os_error() == Some(libc::ENOSPC);
    let (because, advice) = match forbidding {
        Some((file, value, wish)) => {
            (format!("`{file}` is {value}"), format!("ask the administrator to set {wish}, or to install `sarus-shim` setuid root"))
        }
        None if is_limit => (
            "as many as user.max_user_namespaces or user.max_mnt_namespaces permits are in use".to_owned(),
            "the runs of a job share two user namespaces: end other containers of yours on this node, or ask the administrator to raise the limit, or to install `sarus-shim` setuid root".to_owned(),
        ),
        None => (
            "the kernel refuses, and none of its switches says why".to_owned(),
            "a security module, a seccomp filter or a surrounding container forbids it: ask the administrator to permit user namespaces, or to install `sarus-shim` setuid root".to_owned(),
        ),
    };
    ShimError::NoUserNamespace { because, advice, source }
}

#[expect(clippy::disallowed_methods, reason = "an unreadable switch forbids nothing")]
fn fs_read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}
