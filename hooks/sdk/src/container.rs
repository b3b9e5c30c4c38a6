//! The container that a hook works on: its state, its configuration and its root.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use sarus_sys::root::Root;
use serde_json::Value;

use crate::input::{self, INPUT_SIZE_MAX, Input, State};
use crate::{Failure, enter, survey};

/// The ids of a container's process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Person {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// A container, as a hook sees it.
#[derive(Debug)]
pub struct Container {
    state: Option<State>,
    spec: Value,
    annotations: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
    root: Option<(OwnedFd, PathBuf)>,
}

/// The kernel's id for one that has no place in a user namespace: `overflowuid`.
const NOBODY: u32 = 65534;

impl Container {
    /// Reads standard input and, at an OCI stage, the bundle; enters the container's mount
    /// namespace where there is one, and opens the container's root.
    ///
    /// At `poststop` the bundle may be gone: the configuration is `null` then, and there is no
    /// root.
    ///
    /// # Errors
    ///
    /// Where the input, the bundle or the namespace cannot be read or entered.
    pub fn from_stdin() -> Result<Self, Failure> {
        let (state, spec) = match input::read()? {
            Input::Configuration(spec) => (None, spec),
            Input::State(state) => {
                let spec = match read_configuration(&state.bundle) {
                    Err(_gone) if state.status == "stopped" => Value::Null,
                    spec => spec?,
                };
                (Some(state), spec)
            }
        };
        let mut container = Self::new(state, spec);
        if let Some(state) = &container.state {
            enter::mount_namespace(state)?;
        }
        container.root = container.open_root()?;
        Ok(container)
    }

    /// A container made of parts, for tests of a hook's plan. Its root is the directory that the
    /// configuration names, if it exists.
    pub fn new(state: Option<State>, spec: Value) -> Self {
        let of_spec = spec["annotations"].as_object().into_iter().flatten();
        let of_spec = of_spec.filter_map(|(name, value)| Some((name, value.as_str()?)));
        let mut annotations: BTreeMap<String, String> =
            of_spec.map(|(name, value)| (name.clone(), value.to_owned())).collect();
        if let Some(state) = &state {
            annotations.extend(state.annotations.clone());
        }
        let variables = spec["process"]["env"].as_array().into_iter().flatten();
        let variables = variables.filter_map(|entry| entry.as_str()?.split_once('='));
        let variables =
            variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut made = Self { state, spec, annotations, variables, root: None };
        if let Ok(root) = made.open_root() {
            made.root = root;
        }
        made
    }

    /// Whether this is the stage `precreate`: no container yet, and variables, groups, device
    /// rules and hooks can still be changed.
    pub fn is_precreate(&self) -> bool {
        self.state.is_none()
    }

    /// The state; none at the stage `precreate`.
    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    /// The bundle's configuration, whole.
    pub fn configuration(&self) -> &Value {
        &self.spec
    }

    /// An annotation of the state, else of the configuration.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// All annotations, by name.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// A variable of the container's process, not the hook's own.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The variables of the container's process, by name.
    pub fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The command: program and arguments. Under Sarus, at an OCI stage, the first is a helper of
    /// the engine; the user's command is the annotation `com.hooks.command` (a JSON list).
    pub fn command(&self) -> Vec<String> {
        let listed = self.annotation("com.hooks.command");
        if let Some(command) = listed.and_then(|text| serde_json::from_str(text).ok()) {
            return command;
        }
        let listed = self.spec["process"]["args"].as_array().into_iter().flatten();
        listed.filter_map(|word| word.as_str().map(str::to_owned)).collect()
    }

    /// The ids of the container's process, as this process sees them: those outside, where the
    /// container has a user namespace and this process is in none.
    pub fn person(&self) -> Person {
        self.person_seen_from(sarus_sys::namespace::is_initial_user())
    }

    fn person_seen_from(&self, initial: bool) -> Person {
        let user = &self.spec["process"]["user"];
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let outside = |inside: u32, mappings: &str| {
            let mappings = self.spec["linux"][mappings].as_array().into_iter().flatten();
            let mut outside = mappings.filter_map(|mapping| {
                let first = id(&mapping["containerID"])?;
                let offset = inside.checked_sub(first)?;
                let within = offset < id(&mapping["size"])?;
                id(&mapping["hostID"])?.checked_add(offset).filter(|_| within)
            });
            outside.next()
        };
        // Without mappings there is no user namespace.
        let is_mapped = initial && self.spec["linux"]["uidMappings"].is_array();
        let seen = |inside: u32, mappings: &str| match is_mapped {
            true => outside(inside, mappings),
            false => Some(inside),
        };
        let groups = user["additionalGids"].as_array().into_iter().flatten().filter_map(id);
        Person {
            // An id that is mapped to none is nobody's outside.
            uid: seen(id(&user["uid"]).unwrap_or_default(), "uidMappings").unwrap_or(NOBODY),
            gid: seen(id(&user["gid"]).unwrap_or_default(), "gidMappings").unwrap_or(NOBODY),
            groups: groups.filter_map(|gid| seen(gid, "gidMappings")).collect(),
        }
    }

    /// The container's root directory: nothing that is resolved in it leads out.
    ///
    /// # Errors
    ///
    /// Where there is none: at the stage `precreate` of an engine that mounts it later, and at
    /// `poststop`.
    pub fn root(&self) -> Result<Root<'_>, Failure> {
        let missing = || Failure::new("the container has no root file system at this stage");
        self.root.as_ref().map(|(root, _)| Root(root.as_fd())).ok_or_else(missing)
    }

    /// Where the root directory is in the hook's mount namespace: for messages only, since a path
    /// below it may lead out.
    pub fn root_path(&self) -> Option<&Path> {
        self.root.as_ref().map(|(_, path)| path.as_path())
    }

    /// Looks at files of the container, in a process that has the rights of the container's user
    /// and no capability: a program that parses a hostile file may be made to do anything, and then
    /// it can do nothing. The process has 1 GiB of memory and 30 s.
    ///
    /// # Errors
    ///
    /// Where there is no root, and where the process ended without an answer.
    pub fn survey<T>(&self, look: impl FnOnce(Root<'_>) -> T) -> Result<T, Failure>
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        let root = self.root()?;
        survey::apart(&self.person(), || look(root))
    }

    fn open_root(&self) -> Result<Option<(OwnedFd, PathBuf)>, Failure> {
        let Some(path) = self.spec["root"]["path"].as_str() else { return Ok(None) };
        let bundle = self.state.as_ref().map(|state| state.bundle.as_path());
        let path = bundle.unwrap_or(Path::new("/")).join(path);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open(&path, flags, Mode::empty()) {
            Ok(root) => Ok(Some((root, path))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => {
                let what = format!("cannot open the container's root `{}`", path.display());
                Err(Failure::new(what).because(std::io::Error::from(error)))
            }
        }
    }
}

fn read_configuration(bundle: &Path) -> Result<Value, Failure> {
    let path = bundle.join("config.json");
    let failed =
        || Failure::new(format!("cannot read the container's configuration `{}`", path.display()));
    let mut text = Vec::new();
    let file = std::fs::File::open(&path).map_err(|error| failed().because(error))?;
    file.take(INPUT_SIZE_MAX as u64)
        .read_to_end(&mut text)
        .map_err(|error| failed().because(error))?;
    serde_json::from_slice(&text).map_err(|error| failed().because(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_configuration_says_is_found() {
        let spec = json!({
            "root": {"path": "/nonexistent"},
            "process": {"user": {"uid": 7, "gid": 8, "additionalGids": [9]},
                        "args": ["/helper", "3"], "env": ["A=1", "B=x=y", "broken"]},
            "annotations": {"com.hooks.command": "[\"python3\",\"x.py\"]", "a": "b"},
        });
        let container = Container::new(None, spec);
        assert!(container.is_precreate());
        assert_eq!(container.variable("B"), Some("x=y"));
        assert_eq!(container.variables().len(), 2);
        assert_eq!(container.command(), ["python3", "x.py"]);
        assert_eq!(container.person(), Person { uid: 7, gid: 8, groups: vec![9] });
        assert!(container.root().is_err());
    }

    #[test]
    fn ids_are_mapped_for_who_is_outside() {
        let mappings = json!([{"containerID": 0, "hostID": 100_000, "size": 10},
                              {"containerID": 50, "hostID": 7, "size": 1}]);
        let container = Container::new(
            None,
            json!({
                "process": {"user": {"uid": 3, "gid": 50, "additionalGids": [9, 10]}},
                "linux": {"uidMappings": mappings, "gidMappings": mappings},
            }),
        );
        let outside = Person { uid: 100_003, gid: 7, groups: vec![100_009] };
        assert_eq!(container.person_seen_from(true), outside);
        let inside = Person { uid: 3, gid: 50, groups: vec![9, 10] };
        assert_eq!(container.person_seen_from(false), inside);
    }
}
