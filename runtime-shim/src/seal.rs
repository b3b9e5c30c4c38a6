//! A hook of our own: keeps the root file system without device nodes and set-user-ID programs.
//!
//! crun drops these attributes of the mount that it is given; what sets them again is part of
//! `sarus-entry`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::image::Run;
use crate::mode::Mode;
use crate::runtime::Runtime;

/// Adds the hook where the runtime makes it necessary.
pub(crate) fn add(run: &Run<'_>, runtime: &Runtime, rootfs: &Path, hooks: &mut Value) {
    // In a user namespace the kernel lets no device node work.
    if run.mode == Mode::Rootless || !runtime.is_crun {
        return;
    }
    let own = std::env::current_exe().unwrap_or_else(|_unknown| PathBuf::from("sarus-shim"));
    let program = own.with_file_name("sarus-entry");
    let entry = json!({ "path": program, "args": ["sarus-entry", "seal-root", rootfs] });
    match hooks["createContainer"].as_array_mut() {
        Some(stage) => stage.insert(0, entry),
        None => hooks["createContainer"] = json!([entry]),
    }
}
