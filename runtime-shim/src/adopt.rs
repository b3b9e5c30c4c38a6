//! What hooks of the stage `precreate` added to the configuration, and the shim does in the
//! runtime's place.
//!
//! A runtime resolves the destination of a mount by name, in an image that may be hostile, and as
//! root; what it cannot do in a user namespace (device nodes, groups) it refuses to start with.

use std::path::{Path, PathBuf};

use rustix::fs::{makedev, stat};
use sarus_launch::Origin;
use sarus_sys::root::Root;
use serde_json::Value;

use crate::error::ShimError;
use crate::image::Run;
use crate::ledger::Entry;
use crate::mode::Mode;
use crate::user_mounts::{self, Opened};

/// The annotation in which a hook names the CDI devices that it gave to the container.
pub(crate) const INJECTED: &str = "com.hooks.cdi.injected";

/// The annotation that holds the CDI devices of `--device`.
const WANTED: &str = "cdi.k8s.io/sarus";

/// A mount that a hook asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) source: PathBuf,
    pub(crate) destination: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) is_device: bool,
    /// Why, for who asks.
    pub(crate) reason: String,
}

/// Why, where the hook does not say it itself.
const BY_PRECREATE: &str = "a hook of the stage `precreate`";

/// Whether what the shim and the runtime use of a configuration has the types of the runtime
/// specification (config.md, config-linux.md). A member that is absent or null is not there.
///
/// # Errors
///
/// The first member that has another, in words.
pub(crate) fn check(spec: &Value) -> Result<(), String> {
    type Fits<'a> = &'a dyn Fn(&Value) -> bool;
    let rules: [(&str, &str, Fits<'_>); 12] = [
        ("annotations", "an object of texts", &|all| all_of_object(all, Value::is_string)),
        ("hooks", "an object of lists of hooks", &|all| all_of_object(all, is_hooks)),
        ("linux", "an object", &Value::is_object),
        ("linux.devices", "a list of devices, each with its path", &|all| {
            is_list(all, |device| device["path"].is_string())
        }),
        ("linux.namespaces", "a list of objects", &|all| is_list(all, Value::is_object)),
        ("linux.resources", "an object", &Value::is_object),
        ("mounts", "a list of mounts, each with a destination, and a list of options", &|all| {
            is_list(all, is_mount)
        }),
        ("process", "an object", &Value::is_object),
        ("process.args", "a list of texts without NUL bytes", &is_texts),
        ("process.env", "a list of texts without NUL bytes", &is_texts),
        ("process.user", "an object", &Value::is_object),
        ("root", "an object", &Value::is_object),
    ];
    if !spec.is_object() {
        return Err("its output is not an object".to_owned());
    }
    for (member, expected, fits) in rules {
        let found = member.split('.').fold(spec, |value, name| &value[name]);
        if !found.is_null() && !fits(found) {
            return Err(format!("`{member}` of its output is not {expected}"));
        }
    }
    Ok(())
}

fn is_list(value: &Value, fits: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(fits))
}

fn all_of_object(value: &Value, fits: impl Fn(&Value) -> bool) -> bool {
    value.as_object().is_some_and(|object| object.values().all(fits))
}

fn is_texts(value: &Value) -> bool {
    is_list(value, |text| text.as_str().is_some_and(|text| !text.contains('\0')))
}

fn is_mount(mount: &Value) -> bool {
    let text = |name: &str| mount[name].is_string() || mount[name].is_null();
    let options = &mount["options"];
    mount["destination"].is_string()
        && text("source")
        && text("type")
        && (options.is_null() || is_texts(options))
}

fn is_hooks(stage: &Value) -> bool {
    let texts = |value: &Value| value.is_null() || is_texts(value);
    let is_hook = |hook: &Value| {
        hook["path"].is_string()
            && texts(&hook["args"])
            && texts(&hook["env"])
            && (hook["timeout"].is_null() || hook["timeout"].is_u64())
    };
    stage.is_null() || is_list(stage, is_hook)
}

/// Attaches the bind mounts and device nodes that `spec` has and `before` has not, and takes them
/// out of `spec`, with what no runtime of ours can do: rules for devices, since the command stays
/// in the cgroup that the launcher gave it, and groups that a user namespace has not.
///
/// Sources are opened with the caller's rights.
pub(crate) fn adopt(
    run: &Run<'_>,
    root: Root<'_>,
    (before, spec): (&Value, &mut Value),
) -> Result<(), ShimError> {
    for wanted in take_mounts(before, spec).into_iter().chain(take_devices(before, spec)) {
        attach(run, root, &wanted)?;
    }
    if let Some(resources) = spec["linux"]["resources"].as_object_mut()
        && resources.remove("devices").is_some()
    {
        log::debug!(
            "rules for devices of hooks are left away: the command has no cgroup of its own"
        );
    }
    if run.mode == Mode::Rootless
        && let Some(user) = spec["process"]["user"].as_object_mut()
        && let Some(groups) = user.remove("additionalGids")
    {
        log::info!("a hook gives the groups {groups}, which takes privilege: left away");
    }
    Ok(())
}

/// Takes the same out of `spec` and does nothing with it.
pub(crate) fn drop_adopted(before: &Value, spec: &mut Value) {
    let _mounted_by_the_steps = (take_mounts(before, spec), take_devices(before, spec));
}

/// Attaches what a hook wants, and writes it down.
pub(crate) fn attach(run: &Run<'_>, root: Root<'_>, wanted: &Wanted) -> Result<(), ShimError> {
    let failed = |source| ShimError::HookMount {
        path: wanted.source.clone(),
        destination: wanted.destination.clone(),
        source,
    };
    let replaces = root.resolve(&wanted.destination).is_ok();
    let Opened(mount, kind) = user_mounts::open_any(run, &wanted.source, wanted.read_only)
        .map_err(|error| match error {
            ShimError::MountSource { source, .. } => failed(source),
            other => other,
        })?;
    user_mounts::ensure(run, root, (&wanted.destination, kind))
        .and_then(|target| mount.attach(std::os::fd::AsFd::as_fd(&target)))
        .map_err(failed)?;
    let why = (Origin::Hook, wanted.reason.as_str());
    let entry = Entry::asked(&wanted.destination, &wanted.source, why);
    let (is_device, read_only) = (wanted.is_device, wanted.read_only);
    run.ledger.note(Entry { is_device, read_only, replaces, ..entry });
    Ok(())
}

/// The bind mounts that were added, in their order; other mounts are left to the runtime.
fn take_mounts(before: &Value, spec: &mut Value) -> Vec<Wanted> {
    take(before, spec, "/mounts", |mount| {
        let options: Vec<&str> =
            mount["options"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let has = |name: &str| options.contains(&name);
        if mount["type"] != "bind" && !has("bind") && !has("rbind") {
            return None;
        }
        Some(Wanted {
            source: mount["source"].as_str()?.into(),
            destination: mount["destination"].as_str()?.into(),
            read_only: has("ro"),
            is_device: false,
            reason: BY_PRECREATE.to_owned(),
        })
    })
}

/// The device nodes that were added and that the host has at the same path.
fn take_devices(before: &Value, spec: &mut Value) -> Vec<Wanted> {
    take(before, spec, "/linux/devices", |device| {
        let path = Path::new(device["path"].as_str()?);
        let number =
            |name: &str| device[name].as_u64().and_then(|number| u32::try_from(number).ok());
        let number = makedev(number("major")?, number("minor")?);
        stat(path).is_ok_and(|found| found.st_rdev == number).then(|| Wanted {
            source: path.to_owned(),
            destination: path.to_owned(),
            read_only: false,
            is_device: true,
            reason: BY_PRECREATE.to_owned(),
        })
    })
}

/// Takes entries out of a list of the configuration: those that were not there before, and that
/// `of` makes something of.
fn take(
    before: &Value,
    spec: &mut Value,
    place: &str,
    of: impl Fn(&Value) -> Option<Wanted>,
) -> Vec<Wanted> {
    let known = before.pointer(place).and_then(Value::as_array);
    let known = known.map(Vec::as_slice).unwrap_or_default();
    let mut taken = Vec::new();
    if let Some(list) = spec.pointer_mut(place).and_then(Value::as_array_mut) {
        list.retain(|entry| match of(entry).filter(|_| !known.contains(entry)) {
            Some(wanted) => {
                taken.push(wanted);
                false
            }
            None => true,
        });
    }
    taken
}

/// Every CDI device of `--device` must have been given by some hook.
pub(crate) fn check_devices(spec: &Value) -> Result<(), ShimError> {
    let listed = |name: &str| spec["annotations"][name].as_str().unwrap_or_default().split(',');
    let mut wanted = listed(WANTED).filter(|device| !device.is_empty());
    match wanted.find(|device| !listed(INJECTED).any(|injected| injected == *device)) {
        Some(device) => Err(ShimError::NoCdiDevice { device: device.to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_added_is_taken_and_the_rest_stays() {
        let own = json!({"type": "bind", "source": "/own", "destination": "/dev"});
        let memory = json!({"type": "tmpfs", "source": "tmpfs", "destination": "/scratch"});
        let before = json!({"mounts": [own]});
        let mut spec = json!({
            "mounts": [own, memory,
                {"source": "/a", "destination": "/b", "options": ["rbind", "ro"]},
                {"type": "bind", "source": "/c", "destination": "/d"}],
            "linux": {"devices": [
                {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
                {"path": "/dev/null", "type": "c", "major": 9, "minor": 9},
            ]},
        });
        let taken = take_mounts(&before, &mut spec);
        let taken: Vec<_> =
            taken.iter().map(|wanted| (wanted.source.to_str(), wanted.read_only)).collect();
        assert_eq!(taken, [(Some("/a"), true), (Some("/c"), false)]);
        assert_eq!(spec["mounts"], json!([own, memory]));
        assert_eq!(take_devices(&before, &mut spec).len(), 1);
        assert_eq!(spec["linux"]["devices"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_configuration_of_other_types_is_refused_with_the_member() {
        for fine in [
            json!({}),
            json!({"mounts": null, "linux": null, "hooks": {"poststop": null}}),
            json!({"process": {"env": ["A=1"], "args": []}, "annotations": {"a": "b"},
                "hooks": {"prestart": [{"path": "/h", "args": ["h"], "timeout": 1}]},
                "mounts": [{"destination": "/a", "options": ["ro"]}]}),
        ] {
            assert_eq!(check(&fine), Ok(()), "{fine}");
        }
        for (bad, want) in [
            (json!([]), "its output is not an object"),
            (json!("x"), "its output is not an object"),
            (json!(null), "its output is not an object"),
            (json!({"linux": "x"}), "`linux` of"),
            (json!({"linux": {"devices": [1]}}), "`linux.devices` of"),
            (json!({"process": []}), "`process` of"),
            (json!({"process": {"user": []}}), "`process.user` of"),
            (json!({"process": {"env": {}}}), "`process.env` of"),
            (json!({"process": {"env": "A=1"}}), "`process.env` of"),
            (json!({"process": {"env": [1]}}), "`process.env` of"),
            (json!({"process": {"args": ["a\u{0}"]}}), "`process.args` of"),
            (json!({"hooks": []}), "`hooks` of"),
            (json!({"hooks": {"createRuntime": [1]}}), "`hooks` of"),
            (json!({"hooks": {"createRuntime": [{"path": "/h", "args": "h"}]}}), "`hooks` of"),
            (json!({"annotations": []}), "`annotations` of"),
            (json!({"mounts": [{"source": "/a"}]}), "`mounts` of"),
            (json!({"mounts": [{"destination": "/a", "options": "ro"}]}), "`mounts` of"),
        ] {
            let said = check(&bad).unwrap_err();
            assert!(said.contains(want), "{bad}: {said}");
        }
    }

    #[test]
    fn a_device_that_no_hook_gave_is_missed() {
        for (injected, ok) in
            [("", false), ("v.com/gpu=0", false), ("v.com/gpu=1,v.com/gpu=0", true)]
        {
            let spec = json!({"annotations": {
                WANTED: "v.com/gpu=0,v.com/gpu=1", INJECTED: injected,
            }});
            assert_eq!(check_devices(&spec).is_ok(), ok, "{injected}");
        }
        assert!(check_devices(&json!({})).is_ok());
    }
}
