//! A hook of our own: keeps the root file system without device nodes and set-user-ID programs.
//!
//! crun drops these attributes of the mount that it is given. With privilege that would make device
//! nodes of an image usable, so they are set again in the stage `createContainer`, in the
//! container's mount namespace, before anything of the image runs.

use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags, open};
use sarus_sys::mount::{Attributes, restrict_mount};
use serde_json::{Value, json};

use crate::error::{ShimError, cannot};
use crate::image::Run;
use crate::mode::Mode;
use crate::runtime::Runtime;

/// Most that is read of the container's state, in bytes.
const STATE_SIZE_MAX: u64 = 64 << 20;

/// Adds the hook where the runtime makes it necessary.
pub(crate) fn add(run: &Run<'_>, runtime: &Runtime, rootfs: &Path, hooks: &mut Value) {
    // In a user namespace the kernel lets no device node work.
    if run.mode == Mode::Rootless || !runtime.is_crun {
        return;
    }
    let program = std::env::current_exe().unwrap_or_else(|_unknown| PathBuf::from("sarus-shim"));
    let entry = json!({ "path": program, "args": ["sarus-shim", "seal-root", rootfs] });
    match hooks["createContainer"].as_array_mut() {
        Some(stage) => stage.insert(0, entry),
        None => hooks["createContainer"] = json!([entry]),
    }
}

/// The hook.
pub(crate) fn seal(rootfs: &str) -> Result<(), ShimError> {
    // Whoever starts the setuid program is not to change mounts of the host.
    if !rustix::process::getuid().is_root() {
        return Err(ShimError::Usage);
    }
    let failed = cannot("restrict the root file system");
    // crun takes it for a failure when nobody reads the state that it writes.
    let state = std::io::copy(&mut std::io::stdin().take(STATE_SIZE_MAX), &mut std::io::sink());
    state.map_err(&failed)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = open(rootfs, flags, FileMode::empty()).map_err(|e| failed(e.into()))?;
    restrict_mount(root.as_fd(), Attributes::NO_SUID_NO_DEV).map_err(failed)
}
