//! Versions of the specification, and which of them what a file uses needs.

use super::name::parse_kind;
use super::spec::{Spec, parts};

/// The versions that are understood; 0.8.0 and 1.0.0 changed no field.
const KNOWN: [&str; 8] = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// Checks that a file's version is known, and that it has all that the file uses.
pub(crate) fn check(spec: &Spec) -> Result<(), String> {
    let given = spec.cdi_version.as_str();
    let place = |version: &str| KNOWN.iter().position(|known| *known == version);
    let Some(declared) = place(given.strip_prefix('v').unwrap_or(given)) else {
        let known = KNOWN.join(", ");
        return Err(format!("`cdiVersion`: `{given}` is not known; known are {known}"));
    };
    let mut needed = needs(spec);
    let missing = needed.find(|(version, _)| place(version) > Some(declared));
    match missing {
        Some((version, what)) => {
            Err(format!("`cdiVersion` is {given}, but {what} needs at least {version}"))
        }
        None => Ok(()),
    }
}

/// What a file uses that not all versions have, the newest first.
fn needs(spec: &Spec) -> impl Iterator<Item = (&'static str, String)> {
    let newest = parts(spec).filter_map(|(place, edits)| {
        let rdt = edits.intel_rdt.as_ref();
        if !edits.net_devices.is_empty() {
            return Some(("1.1.0", format!("`{place}.netDevices`")));
        }
        let monitoring =
            rdt.is_some_and(|rdt| rdt.schemata.is_some() || rdt.enable_monitoring.is_some());
        monitoring
            .then(|| ("1.1.0", format!("`schemata` or `enableMonitoring` in `{place}.intelRdt`")))
    });
    let groups = parts(spec).filter_map(|(place, edits)| {
        if edits.intel_rdt.is_some() {
            return Some(("0.7.0", format!("`{place}.intelRdt`")));
        }
        let any = !edits.additional_gids.is_empty();
        any.then(|| ("0.7.0", format!("`{place}.additionalGids`")))
    });
    let is_annotated = !spec.annotations.is_empty()
        || spec.devices.iter().any(|device| !device.annotations.is_empty());
    let annotations = is_annotated.then(|| ("0.6.0", "`annotations`".to_owned()));
    let dots = parse_kind(&spec.kind).is_ok_and(|(_, class)| class.contains('.'));
    let dots = dots.then(|| ("0.6.0", format!("a dot in the class of `{}`", spec.kind)));
    let digit = spec.devices.iter().filter_map(|device| {
        let begins = device.name.starts_with(|c: char| c.is_ascii_alphabetic());
        (!begins).then(|| ("0.5.0", format!("a device's name that is `{}`", device.name)))
    });
    let host_paths = parts(spec).filter_map(|(place, edits)| {
        let any = edits.device_nodes.iter().any(|node| node.host_path.is_some());
        any.then(|| ("0.5.0", format!("`hostPath` in `{place}.deviceNodes`")))
    });
    let types = parts(spec).filter_map(|(place, edits)| {
        let any = edits.mounts.iter().any(|mount| mount.kind.is_some());
        any.then(|| ("0.4.0", format!("`type` in `{place}.mounts`")))
    });
    newest.chain(groups).chain(annotations).chain(dots).chain(digit).chain(host_paths).chain(types)
}
