//! The OCI bundle's configuration: <https://github.com/opencontainers/runtime-spec>, version 1.0.2.
//!
//! Kept as JSON and not as types, since a hook of the stage `precreate` may add what no type of
//! ours knows, and the runtime is to see it. No mount's source is a user's: those are attached
//! before the runtime starts.

use std::collections::BTreeMap;
use std::path::Path;

use sarus_launch::Variables;
use serde_json::{Value, json};

use crate::caller::Caller;
use crate::image::Run;
use crate::mode::Mode;

/// Files of /proc and /sys that no container sees, as runc's own `spec` has them.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Directories of /proc that no container changes.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What of a container goes into the bundle.
#[derive(Debug)]
pub(crate) struct Contents<'a> {
    pub(crate) base: &'a Path,
    pub(crate) variables: &'a Variables,
    pub(crate) workdir: &'a str,
    pub(crate) annotations: &'a BTreeMap<String, String>,
    pub(crate) hooks: Value,
    /// The option by which the host's `/proc` hides processes, if it does.
    pub(crate) hidepid: Option<String>,
}

/// The configuration with the user's command in it, as hooks see it.
pub(crate) fn configuration(run: &Run<'_>, contents: &Contents<'_>) -> Value {
    let arguments: Vec<String> =
        run.request.command.args.iter().map(sarus_launch::RawString::to_string_lossy).collect();
    let rootfs = contents.base.join("rootfs");
    let mut mounts = vec![json!({
        "destination": "/dev",
        "type": "bind",
        "source": rootfs.join("dev"),
        "options": ["rbind"],
    })];
    let mut namespaces = vec![json!({ "type": "mount" })];
    if run.request.namespaces.pid {
        namespaces.push(json!({ "type": "pid" }));
        let mut options = vec!["nosuid", "noexec", "nodev"];
        options.extend(contents.hidepid.as_deref());
        mounts.push(json!({
            "destination": "/proc", "type": "proc", "source": "proc", "options": options,
        }));
    }
    let mut spec = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": user(run.mode, run.caller),
            "args": arguments,
            "env": environment(contents.variables),
            "cwd": contents.workdir,
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [],
            },
        },
        "root": { "path": rootfs, "readonly": run.request.read_only },
        "mounts": mounts,
        "hooks": contents.hooks,
        "annotations": contents.annotations,
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    });
    let config = run.config;
    for (object, key, value) in [
        ("process", "apparmorProfile", &config.apparmor_profile),
        ("process", "selinuxLabel", &config.selinux_label),
        ("linux", "mountLabel", &config.selinux_mount_label),
    ] {
        if let Some(value) = value {
            spec[object][key] = json!(value);
        }
    }
    spec
}

/// The option `hidepid=` of the `/proc` in the text of `/proc/PID/mountinfo`.
pub(crate) fn hidepid(mounts: &str) -> Option<String> {
    let of = |line: &str| {
        let (mount, file_system) = line.split_once(" - ")?;
        let is_proc = mount.split(' ').nth(4) == Some("/proc") && file_system.starts_with("proc ");
        let options = file_system.rsplit(' ').next().filter(|_| is_proc)?;
        options.split(',').find(|option| option.starts_with("hidepid=")).map(str::to_owned)
    };
    mounts.lines().filter_map(of).next_back()
}

/// Rootless, the runtime's process is id 0 of the outer user namespace, and `sarus-entry` makes
/// it the user; else it is the user from the start.
fn user(mode: Mode, caller: &Caller) -> Value {
    match mode {
        Mode::Rootless => json!({ "uid": 0, "gid": 0 }),
        Mode::Privileged => {
            json!({ "uid": caller.uid, "gid": caller.gid, "additionalGids": caller.groups })
        }
    }
}

/// Variables whose value is text; the others go to `sarus-entry` alone.
fn environment(variables: &Variables) -> Vec<String> {
    let text = |(name, variable): (&sarus_launch::RawString, &sarus_launch::Variable)| {
        Some(format!("{}={}", name.as_str()?, variable.value.as_str()?))
    };
    variables.iter().filter_map(text).collect()
}

/// The variables of a configuration, after hooks edited it, and those that are no text. Of several
/// with one name the last counts, as with the runtimes: so a hook may append what replaces.
pub(crate) fn final_environment(spec: &Value, variables: &Variables) -> Vec<Vec<u8>> {
    let other = variables
        .iter()
        .filter(|(name, variable)| name.as_str().is_none() || variable.value.as_str().is_none());
    let other =
        other.map(|(name, variable)| [name.as_bytes(), b"=", variable.value.as_bytes()].concat());
    let listed = spec["process"]["env"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut entries: Vec<Vec<u8>> =
        other.chain(listed.map(|entry| entry.as_bytes().to_vec())).collect();
    entries.retain(|entry| !entry.contains(&0));
    let mut names = std::collections::BTreeSet::new();
    let name = |entry: &[u8]| entry.split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
    entries.reverse();
    entries.retain(|entry| names.insert(name(entry)));
    entries.reverse();
    entries
}

/// The command of a configuration, after hooks edited it: the user's own bytes where it is still
/// the user's.
pub(crate) fn final_arguments(spec: &Value, run: &Run<'_>) -> Vec<Vec<u8>> {
    let given = &run.request.command.args;
    let listed: Vec<&str> = spec["process"]["args"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let unchanged = listed.len() == given.len()
        && given.iter().zip(&listed).all(|(given, listed)| given.to_string_lossy() == **listed);
    if unchanged || listed.is_empty() {
        given.iter().map(|argument| argument.as_bytes().to_vec()).collect()
    } else {
        listed.into_iter().map(|argument| argument.as_bytes().to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::hidepid;

    #[test]
    fn the_last_proc_says_what_it_hides() {
        let proc = |options: &str| format!("22 1 0:21 / /proc rw,nosuid - proc proc {options}\n");
        for (mounts, want) in [
            (proc("rw"), None),
            (proc("rw,hidepid=2,gid=5"), Some("hidepid=2")),
            (proc("rw,hidepid=1") + &proc("rw,hidepid=invisible"), Some("hidepid=invisible")),
            ("9 8 0:5 / /mnt rw - proc proc rw,hidepid=2".to_owned(), None),
            ("9 8 0:5 / /proc rw - tmpfs x rw,hidepid=2".to_owned(), None),
        ] {
            assert_eq!(hidepid(&mounts).as_deref(), want, "{mounts}");
        }
    }
}
