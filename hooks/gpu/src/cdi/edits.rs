//! What becomes of the edits of a specification: steps of a plan.

use std::path::Path;

use sarus_hook::{Failure, Plan, Step};
use serde_json::{Map, Value, json};

use super::name::DeviceName;
use super::registry::File;
use super::spec::{Edits, Hook, IntelRdt, Mount, Node};
use super::stale::Stale;
use crate::host::Found;

/// Whose edits these are.
pub(crate) struct Origin<'o> {
    pub(crate) name: &'o DeviceName,
    pub(crate) file: &'o File,
}

impl Origin<'_> {
    fn reason(&self) -> String {
        format!("CDI device `{}` of `{}`", self.name, self.file.path.display())
    }
}

/// Plans edits. What no longer fits the node is noted in `stale`.
pub(crate) fn plan(
    edits: &Edits,
    origin: &Origin<'_>,
    stale: &mut Stale<'_>,
    plan: &mut Plan,
) -> Result<(), Failure> {
    if let Some(interface) = edits.net_devices.first() {
        let name = &interface.host_interface_name;
        return Err(Failure::new(format!("cannot give the container `{}`", origin.name))
            .because(format!("it takes the network interface `{name}` from the host"))
            .hint("the container's network is the host's: its interfaces are there already"));
    }
    let mut steps = Vec::new();
    for entry in &edits.env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        steps.push(Step::variable(name, value));
    }
    for node in &edits.device_nodes {
        steps.extend(device(node, stale));
        if node.file_mode.is_some() || node.uid.is_some() || node.gid.is_some() {
            let path = node.path.display();
            plan.note(format!(
                "`{path}` is the host's node and keeps its owner and mode, whatever {} says",
                origin.reason()
            ));
        }
    }
    let mut mounts: Vec<&Mount> = edits.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.container_path.components().count());
    steps.extend(mounts.into_iter().filter_map(|entry| mount(entry, stale)));
    for entry in &edits.hooks {
        if stale.program(&entry.path)
            && let Some(reason) = stale.host().distrust(&entry.path)
        {
            let what = format!("cannot use the hook of the CDI device `{}`", origin.name);
            return Err(Failure::new(what)
                .because(reason)
                .hint("only what root alone can change is started as root"));
        }
        steps.push(Step::Hook { stage: entry.hook_name.clone(), entry: hook(entry) });
    }
    if let Some(rdt) = &edits.intel_rdt {
        steps.push(Step::Configuration { merge: json!({"linux": {"intelRdt": intel_rdt(rdt)}}) });
    }
    let groups = edits.additional_gids.iter().filter(|gid| **gid != 0);
    steps.extend(groups.map(|gid| Step::Group { gid: *gid }));
    for step in steps {
        put(plan, step, origin);
    }
    Ok(())
}

/// Adds a step, in place of one that is for the same path of the container; not twice the same.
fn put(plan: &mut Plan, step: Step, origin: &Origin<'_>) {
    if plan.steps.iter().any(|planned| planned.step == step) {
        return;
    }
    if let Some(path) = destination(&step) {
        plan.steps.retain(|planned| destination(&planned.step) != Some(path));
    }
    let reason = origin.reason();
    plan.step(step, reason);
}

fn destination(step: &Step) -> Option<&Path> {
    match step {
        Step::Bind { destination, .. } | Step::Device { destination, .. } => Some(destination),
        _ => None,
    }
}

/// A node is the host's own, mounted: no right is needed to make it.
fn device(node: &Node, stale: &mut Stale<'_>) -> Option<Step> {
    let source = node.host_path.as_ref().filter(|path| !path.as_os_str().is_empty());
    let source = source.unwrap_or(&node.path).clone();
    let destination = node.path.clone();
    match stale.node(&source, node)? {
        Found::Device { .. } => {}
        _ => return Some(Step::Bind { source, destination, read_only: false }),
    }
    Some(match node.permissions.as_deref() {
        Some("none") => bind_exactly(&source, &destination, &["bind".to_owned()]),
        given => {
            let access = given.filter(|text| !text.is_empty()).unwrap_or("rwm").to_owned();
            Step::Device { source, destination, access }
        }
    })
}

fn mount(entry: &Mount, stale: &mut Stale<'_>) -> Option<Step> {
    let kind = entry.kind.as_deref().unwrap_or_default();
    let has = |name: &str| entry.options.iter().any(|option| option == name);
    let (source, destination) = (entry.host_path.clone(), entry.container_path.clone());
    let is_bind = ["", "none", "bind"].contains(&kind) || has("bind") || has("rbind");
    if !is_bind {
        return Some(Step::Configuration {
            merge: json!({"mounts": [{
                "type": kind, "source": source, "destination": destination,
                "options": entry.options,
            }]}),
        });
    }
    let read_only = has("ro");
    if let Found::Device { .. } = stale.source(&source)? {
        let access = if read_only { "r" } else { "rw" }.to_owned();
        return Some(Step::Device { source, destination, access });
    }
    let holds_nodes = source.starts_with("/dev") || destination.starts_with("/dev");
    Some(if has("noexec") || (holds_nodes && !has("nodev")) {
        let mut options = entry.options.clone();
        if !has("bind") && !has("rbind") {
            options.push("rbind".to_owned());
        }
        bind_exactly(&source, &destination, &options)
    } else {
        Step::Bind { source, destination, read_only }
    })
}

/// A bind mount with these options and no others.
fn bind_exactly(source: &Path, destination: &Path, options: &[String]) -> Step {
    Step::Configuration {
        merge: json!({"mounts": [{
            "type": "bind", "source": source, "destination": destination, "options": options,
        }]}),
    }
}

fn hook(hook: &Hook) -> Value {
    let mut entry = json!({ "path": hook.path });
    if !hook.args.is_empty() {
        entry["args"] = json!(hook.args);
    }
    if !hook.env.is_empty() {
        entry["env"] = json!(hook.env);
    }
    if let Some(seconds) = hook.timeout {
        entry["timeout"] = json!(seconds);
    }
    entry
}

fn intel_rdt(rdt: &IntelRdt) -> Value {
    let members = [
        ("closID", json!(rdt.clos_id)),
        ("l3CacheSchema", json!(rdt.l3_cache_schema)),
        ("memBwSchema", json!(rdt.mem_bw_schema)),
        ("enableCMT", json!(rdt.enable_cmt)),
        ("enableMBM", json!(rdt.enable_mbm)),
        ("schemata", json!(rdt.schemata)),
        ("enableMonitoring", json!(rdt.enable_monitoring)),
    ];
    let given = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(given.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}
