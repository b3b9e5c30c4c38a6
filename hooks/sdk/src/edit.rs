//! Carries a plan out on a bundle's configuration, at the stage `precreate`.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Container, Failure, Plan, Step};

/// The edited configuration. What it cannot hold is left to [`crate::apply`].
pub(crate) fn configuration(container: &Container, plan: &Plan) -> Result<Value, Failure> {
    let mut spec = container.configuration().clone();
    for planned in &plan.steps {
        edit(&mut spec, &planned.step)?;
    }
    Ok(spec)
}

/// Applies a step, if the configuration can hold it.
fn edit(spec: &mut Value, step: &Step) -> Result<(), Failure> {
    match step {
        Step::Bind { source, destination, read_only } => {
            let mut options = vec!["rbind", "nosuid", "nodev"];
            options.extend(read_only.then_some("ro"));
            let entry = json!({
                "type": "bind", "source": source, "destination": destination, "options": options,
            });
            push(spec, &["mounts"], entry);
        }
        Step::Device { source, destination, access } => {
            let rule = device_rule(source, access).map_err(|error| {
                Failure::new(format!("cannot {step}"))
                    .because(error)
                    .hint("is the device's driver loaded on this node?")
            })?;
            // Mounted and not made: a user namespace has no right to make nodes.
            let entry = json!({
                "type": "bind", "source": source, "destination": destination,
                "options": ["bind", "nosuid", "noexec"],
            });
            push(spec, &["mounts"], entry);
            push(spec, &["linux", "resources", "devices"], rule);
        }
        Step::Variable { name, value } => set_variable(spec, name, value),
        Step::Group { gid } => {
            let groups = &["process", "user", "additionalGids"];
            if !list(spec, groups).contains(&json!(gid)) {
                push(spec, groups, json!(gid));
            }
        }
        Step::Annotation { name, value } => {
            merge(spec, &json!({ "annotations": { name: value } }));
        }
        Step::Hook { stage, entry } => push(spec, &["hooks", stage], entry.clone()),
        Step::Configuration { merge: added } => merge(spec, added),
        Step::Link { .. } | Step::LdCache { .. } | Step::Action { .. } => {}
    }
    Ok(())
}

fn device_rule(source: &Path, access: &str) -> std::io::Result<Value> {
    let found = std::fs::metadata(source)?;
    let kind = match found.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return Err(std::io::Error::other("it is not a device node")),
    };
    let number = found.rdev();
    Ok(json!({
        "allow": true, "type": kind, "access": access,
        "major": rustix::fs::major(number), "minor": rustix::fs::minor(number),
    }))
}

/// The list at a place of the configuration, made where it is missing.
fn list<'s>(spec: &'s mut Value, place: &[&str]) -> &'s mut Vec<Value> {
    let mut at = spec;
    for name in place {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[*name];
    }
    if !at.is_array() {
        *at = json!([]);
    }
    match at {
        Value::Array(list) => list,
        _ => unreachable!("it was made one above"),
    }
}

fn push(spec: &mut Value, place: &[&str], entry: Value) {
    list(spec, place).push(entry);
}

fn set_variable(spec: &mut Value, name: &str, value: &str) {
    let variables = list(spec, &["process", "env"]);
    let is_it = |entry: &Value| {
        entry.as_str().and_then(|entry| entry.split_once('=')).is_some_and(|(key, _)| key == name)
    };
    variables.retain(|entry| !is_it(entry));
    variables.push(json!(format!("{name}={value}")));
}

/// Merges member by member; entries of lists are added.
fn merge(into: &mut Value, added: &Value) {
    match (into, added) {
        (Value::Object(into), Value::Object(added)) => merge_members(into, added),
        (Value::Array(into), Value::Array(added)) => into.extend(added.iter().cloned()),
        (into, added) => *into = added.clone(),
    }
}

fn merge_members(into: &mut Map<String, Value>, added: &Map<String, Value>) {
    for (name, value) in added {
        match into.get_mut(name) {
            Some(old) => merge(old, value),
            None => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_edit_the_configuration() {
        let mut spec = json!({
            "process": {"env": ["A=1", "PATH=/bin"], "user": {"uid": 1, "additionalGids": [5]}},
            "hooks": {},
        });
        let steps = [
            Step::bind("/opt/lib", "/usr/lib/x"),
            Step::device("/dev/null"),
            Step::variable("A", "2"),
            Step::variable("B", "3"),
            Step::Group { gid: 5 },
            Step::Group { gid: 6 },
            Step::Annotation { name: "n".into(), value: "v".into() },
            Step::Hook { stage: "createContainer".into(), entry: json!({"path": "/h"}) },
            Step::Configuration { merge: json!({"linux": {"intelRdt": {"closID": "c"}}}) },
        ];
        for step in &steps {
            edit(&mut spec, step).unwrap();
        }
        let want = json!({
            "process": {"env": ["PATH=/bin", "A=2", "B=3"],
                        "user": {"uid": 1, "additionalGids": [5, 6]}},
            "hooks": {"createContainer": [{"path": "/h"}]},
            "mounts": [
                {"type": "bind", "source": "/opt/lib", "destination": "/usr/lib/x",
                 "options": ["rbind", "nosuid", "nodev", "ro"]},
                {"type": "bind", "source": "/dev/null", "destination": "/dev/null",
                 "options": ["bind", "nosuid", "noexec"]},
            ],
            "linux": {
                "resources": {"devices": [
                    {"allow": true, "type": "c", "access": "rw", "major": 1, "minor": 3},
                ]},
                "intelRdt": {"closID": "c"},
            },
            "annotations": {"n": "v"},
        });
        assert_eq!(spec, want);
    }

    #[test]
    fn what_is_no_device_is_no_device() {
        let failure = edit(&mut json!({}), &Step::device("/etc/passwd")).unwrap_err();
        assert!(failure.to_string().contains("not a device node"), "{failure}");
    }
}
