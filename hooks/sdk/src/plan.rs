//! What a hook wants done, as data: shown by `--plan`, applied otherwise.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use crate::Failure;

/// Rights on a device, as the letters of the device cgroup: some of `rwm`.
pub type Access = String;

/// One change of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "do", rename_all = "camelCase")]
#[non_exhaustive]
pub enum Step {
    /// Shows a file or directory of the host at a path in the container, made when absent.
    /// Set-user-ID programs and device nodes in it do not work.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container; links in it stay inside.
        destination: PathBuf,
        /// It refuses writes.
        #[serde(rename = "readOnly")]
        read_only: bool,
    },
    /// Shows a device node of the host.
    Device {
        /// Absolute path on the host, of a device node.
        source: PathBuf,
        /// Absolute path in the container.
        destination: PathBuf,
        /// What the container may do with it; never more than the host lets the user do.
        access: Access,
    },
    /// Makes a symbolic link, or replaces the link that is there. Another file is left as it is,
    /// and that is an error.
    Link {
        /// What it says.
        target: PathBuf,
        /// Absolute path in the container.
        destination: PathBuf,
    },
    /// Adds libraries to the dynamic loader's cache, before those of the same name.
    /// Without effect where the image has no cache (musl).
    LdCache {
        /// Name by which programs ask for it (`DT_SONAME`), and absolute path in the container.
        libraries: Vec<(String, PathBuf)>,
    },
    /// Sets a variable of the container's. At the stage `precreate` only.
    Variable {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Gives the container's process a supplementary group. At the stage `precreate` only, and
    /// without effect where the engine has no right to give groups.
    Group {
        /// Its number.
        gid: u32,
    },
    /// Adds an annotation. At the stage `precreate` only.
    Annotation {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Adds an OCI hook. At the stage `precreate` only.
    Hook {
        /// Its stage, as the runtime specification names it.
        stage: String,
        /// Its entry in the bundle's configuration.
        entry: Value,
    },
    /// Merges an object into the bundle's configuration, member by member; of lists, the entries
    /// are added. At the stage `precreate` only, for what no other step can say.
    Configuration {
        /// The object.
        merge: Value,
    },
    /// Something of the hook's own, done by [`Plan::act`].
    Action {
        /// In words: `start sshd on port 15263`.
        what: String,
    },
}

impl Step {
    /// A read-only [`Step::Bind`].
    pub fn bind(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> Self {
        Self::Bind { source: source.into(), destination: destination.into(), read_only: true }
    }

    /// A [`Step::Device`] at the same path, for reading and writing.
    pub fn device(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self::Device { source: path.clone(), destination: path, access: "rw".to_owned() }
    }

    /// A [`Step::Variable`].
    pub fn variable(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self::Variable { name: name.into(), value: value.into() }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { source, destination, read_only } => {
                let how = if *read_only { " read-only" } else { "" };
                write!(f, "mount `{}` on `{}`{how}", source.display(), destination.display())
            }
            Self::Device { source, destination, access } if source == destination => {
                write!(f, "show device `{}` ({access})", source.display())
            }
            Self::Device { source, destination, access } => {
                let (from, to) = (source.display(), destination.display());
                write!(f, "show device `{from}` as `{to}` ({access})")
            }
            Self::Link { target, destination } => {
                write!(f, "link `{}` to `{}`", destination.display(), target.display())
            }
            Self::LdCache { libraries } => {
                let names: Vec<&str> = libraries.iter().map(|(name, _)| name.as_str()).collect();
                write!(f, "tell the dynamic loader of {}", names.join(", "))
            }
            Self::Variable { name, value } => write!(f, "set `{name}={value}`"),
            Self::Group { gid } => write!(f, "add group {gid}"),
            Self::Annotation { name, value } => write!(f, "annotate `{name}={value}`"),
            Self::Hook { stage, entry } => {
                write!(f, "add hook {} at {stage}", entry.get("path").unwrap_or(&Value::Null))
            }
            Self::Configuration { merge } => write!(f, "add {merge} to the configuration"),
            Self::Action { what } => f.write_str(what),
        }
    }
}

/// A step, and why it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// What is done.
    #[serde(flatten)]
    pub step: Step,
    /// Why.
    pub reason: String,
}

/// What is done by the hook itself when its plan is applied.
type Act = Box<dyn FnOnce() -> Result<(), Failure>>;

/// All that a hook wants done, in order.
#[derive(Default)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Planned>,
    /// What was decided without a step: why nothing was injected, which of several was chosen.
    pub notes: Vec<String>,
    /// What the user should know although the container starts: said on standard error.
    pub warnings: Vec<String>,
    pub(crate) acts: Vec<Act>,
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("steps", &self.steps)
            .field("notes", &self.notes)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl Plan {
    /// Adds a step.
    pub fn step(&mut self, step: Step, reason: impl Into<String>) {
        self.steps.push(Planned { step, reason: reason.into() });
    }

    /// Adds a note.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a warning.
    pub fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Adds a step that only this hook can do. `act` runs after all other steps were applied, in
    /// the container's mount namespace where there is one, and never with `--plan`.
    pub fn act(
        &mut self,
        what: impl Into<String>,
        reason: impl Into<String>,
        act: impl FnOnce() -> Result<(), Failure> + 'static,
    ) {
        self.step(Step::Action { what: what.into() }, reason);
        self.acts.push(Box::new(act));
    }

    /// As `--plan` prints it: `{"version":1,"hook":NAME,"steps":[..],"notes":[..],"warnings":[..]}`,
    /// each step with `do` (its kind in lower camel case), its members and `reason`.
    pub fn to_json(&self, hook: &str) -> Value {
        json!({
            "version": 1, "hook": hook,
            "steps": self.steps, "notes": self.notes, "warnings": self.warnings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_prints_what_and_why() {
        let mut plan = Plan::default();
        plan.step(Step::bind("/opt/a", "/usr/lib/a"), "because");
        plan.note("nothing else");
        plan.warn("little");
        let want = json!({
            "version": 1, "hook": "x",
            "steps": [{"do": "bind", "source": "/opt/a", "destination": "/usr/lib/a",
                       "readOnly": true, "reason": "because"}],
            "notes": ["nothing else"],
            "warnings": ["little"],
        });
        assert_eq!(plan.to_json("x"), want);
    }
}
