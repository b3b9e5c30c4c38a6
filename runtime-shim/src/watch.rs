//! What `sarus-entry` does as a hook, where the runtime is crun: it watches the others, since crun has
//! signals blocked in them and loses what it says of those that fail; and it keeps the root file
//! system without device nodes and set-user-ID programs, since crun drops these attributes of the
//! mount that it is given.

use std::path::Path;

use serde_json::{Value, json};

use crate::construct::{Plan, entry_path};
use crate::mode::Mode;

/// Rewrites the hooks of a bundle for the runtime. `entry` is the descriptor of `sarus-entry` in the
/// container's first process, and `rootfs` the root file system.
pub(crate) fn adapt(spec: &mut Value, plan: &Plan<'_>, (entry, rootfs): (i32, &Path)) {
    if !plan.runtime.is_crun {
        return;
    }
    let program = entry_path();
    let stages = spec.get_mut("hooks").and_then(Value::as_object_mut);
    for (stage, hooks) in stages.into_iter().flatten() {
        // That stage's programs are found in the container.
        let path = match stage.as_str() {
            "startContainer" => json!(format!("/proc/self/fd/{entry}")),
            _ => json!(program),
        };
        for (index, hook) in hooks.as_array_mut().into_iter().flatten().enumerate() {
            watch(hook, (&path, &format!("{stage}/{index}")));
        }
    }
    // In a user namespace the kernel lets no device node work.
    if plan.run.mode == Mode::Rootless {
        return;
    }
    let seal = json!({ "path": program, "args": ["sarus-entry", "seal-root", rootfs] });
    match spec["hooks"]["createContainer"].as_array_mut() {
        Some(stage) => stage.insert(0, seal),
        None => spec["hooks"]["createContainer"] = json!([seal]),
    }
}

/// Puts `sarus-entry` at `path` before a hook.
fn watch(hook: &mut Value, (path, number): (&Value, &str)) {
    let program = hook["path"].take();
    let words = hook["args"].as_array().filter(|words| !words.is_empty()).cloned();
    let limit = hook.as_object_mut().and_then(|hook| hook.remove("timeout"));
    let limit = json!(limit.and_then(|limit| limit.as_u64()).unwrap_or(0).to_string());
    let own = [json!("sarus-entry"), json!("hook"), json!(number), limit, program.clone()];
    let mut arguments = own.to_vec();
    arguments.extend(words.unwrap_or_else(|| vec![program]));
    hook["path"] = path.clone();
    hook["args"] = json!(arguments);
}
