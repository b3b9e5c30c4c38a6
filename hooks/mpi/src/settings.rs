//! What the site says of its MPI stacks: the hook's own variables, and a file of several stacks.

use std::path::{Path, PathBuf};

use sarus_hook::{Failure, site};
use serde::Deserialize;

/// How versions in file names are compared, as Sarus 1.7 did. Interfaces are compared in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compatibility {
    /// The first number is the same.
    Major,
    /// The same, and a host's library with a lower second number is said.
    Full,
    /// The first and second number are the same.
    Strict,
}

/// One MPI of the host, with what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Stack {
    /// The name that `--mpi-type` takes.
    #[serde(rename = "type")]
    pub(crate) name: String,
    /// The libraries that stand for the image's.
    pub(crate) libs: Vec<PathBuf>,
    /// Libraries that these need, where the loader of the host would not find them, or others.
    #[serde(default)]
    pub(crate) dependency_libs: Vec<PathBuf>,
    /// Libraries that these open while they run.
    #[serde(default)]
    pub(crate) dlopen_libs: Vec<PathBuf>,
    /// Files, directories and devices that appear at the same path.
    #[serde(default)]
    pub(crate) bind_mounts: Vec<PathBuf>,
    /// Of the stacks that fit, the one with the highest is taken; of equals the first.
    #[serde(default)]
    pub(crate) preference: i64,
}

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// At least one.
    pub(crate) stacks: Vec<Stack>,
    /// Only if the site asks for it.
    pub(crate) compatibility: Option<Compatibility>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    stacks: Vec<Stack>,
}

/// The name of the stack that the variables of Sarus 1.7 describe.
const UNNAMED: &str = "default";

impl Settings {
    /// From the hook's own variables.
    ///
    /// # Errors
    ///
    /// Where a value has no meaning, and where there is no stack at all.
    pub(crate) fn from_environment() -> Result<Self, Failure> {
        let variable = |name: &str| std::env::var(name).ok();
        let read = |path: &Path| {
            site::read(path)
                .map_err(|failure| failure.within("cannot use the MPI hook's setting `MPI_STACKS`"))
        };
        Self::new(variable, read)
    }

    fn new(
        variable: impl Fn(&str) -> Option<String>,
        read: impl Fn(&Path) -> Result<String, Failure>,
    ) -> Result<Self, Failure> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let list = |name: &str| paths(name, &variable(name).unwrap_or_default());
        let mut stacks = match variable("MPI_STACKS") {
            Some(path) => stacks_of(&path, &read(Path::new(&path))?)?,
            None => Vec::new(),
        };
        let libs = list("MPI_LIBS")?;
        if !libs.is_empty() {
            stacks.push(Stack {
                name: UNNAMED.to_owned(),
                libs,
                dependency_libs: list("MPI_DEPENDENCY_LIBS")?,
                dlopen_libs: Vec::new(),
                bind_mounts: list("BIND_MOUNTS")?,
                preference: 0,
            });
        }
        if stacks.is_empty() {
            return Err(Failure::new("no MPI of the host is configured")
                .hint("name its libraries in `MPI_LIBS`, or a file of stacks in `MPI_STACKS`"));
        }
        let compatibility = match variable("MPI_COMPATIBILITY_TYPE").as_deref() {
            None => None,
            Some("major") => Some(Compatibility::Major),
            Some("full") => Some(Compatibility::Full),
            Some("strict") => Some(Compatibility::Strict),
            Some(other) => {
                let because = format!("`{other}` is none of `major`, `full` and `strict`");
                return Err(wrong("MPI_COMPATIBILITY_TYPE").because(because));
            }
        };
        Ok(Self { stacks, compatibility })
    }

    /// The stacks to choose from, best first; of one type where that is asked for.
    ///
    /// # Errors
    ///
    /// Where there is none of that type.
    pub(crate) fn candidates(&self, wanted: Option<&str>) -> Result<Vec<&Stack>, Failure> {
        let mut stacks: Vec<&Stack> = self.stacks.iter().collect();
        // One stack alone has no type: the hook's file says for which it is.
        let are_named = stacks.iter().any(|stack| stack.name != UNNAMED);
        if let Some(wanted) = wanted.filter(|_| are_named) {
            stacks.retain(|stack| stack.name == wanted);
            if stacks.is_empty() {
                let names: Vec<&str> =
                    self.stacks.iter().map(|stack| stack.name.as_str()).collect();
                return Err(Failure::new(format!("there is no MPI of type `{wanted}` here"))
                    .hint(format!("the site's types are {}", names.join(", "))));
            }
        }
        stacks.sort_by_key(|stack| std::cmp::Reverse(stack.preference));
        Ok(stacks)
    }
}

fn wrong(name: &str) -> Failure {
    Failure::new(format!("cannot use the MPI hook's setting `{name}`"))
}

fn paths(name: &str, text: &str) -> Result<Vec<PathBuf>, Failure> {
    let listed: Vec<PathBuf> =
        text.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    check(name, &listed)?;
    Ok(listed)
}

fn check(name: &str, paths: &[PathBuf]) -> Result<(), Failure> {
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => {
            Err(wrong(name).because(format!("`{}` is not an absolute path", path.display())))
        }
        None => Ok(()),
    }
}

fn stacks_of(path: &str, text: &str) -> Result<Vec<Stack>, Failure> {
    let failed = || wrong("MPI_STACKS").because(format!("`{path}` is not valid"));
    let file: File = serde_json::from_str(text).map_err(|error| failed().because(error))?;
    if file.version != 1 {
        let because = format!("its version is {}, this hook knows 1", file.version);
        return Err(failed().because(because));
    }
    for stack in &file.stacks {
        if stack.libs.is_empty() {
            return Err(failed().because(format!("stack `{}` has no `libs`", stack.name)));
        }
        for list in [&stack.libs, &stack.dependency_libs, &stack.dlopen_libs, &stack.bind_mounts] {
            check("MPI_STACKS", list)?;
        }
    }
    Ok(file.stacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)], file: &str) -> Result<Settings, Failure> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::new(variable, |_path| Ok(file.to_owned()))
    }

    #[test]
    fn the_variables_of_sarus_1_7_are_one_stack() {
        let settings = settings(
            &[
                ("MPI_LIBS", "/opt/libmpi.so.12:/opt/libmpifort.so.12"),
                ("MPI_DEPENDENCY_LIBS", "/opt/libfabric.so.1"),
                ("BIND_MOUNTS", "/var/opt:/dev/cxi0"),
                ("MPI_COMPATIBILITY_TYPE", "strict"),
                ("LDCONFIG_PATH", "/sbin/ldconfig"),
            ],
            "",
        )
        .unwrap();
        assert_eq!(settings.compatibility, Some(Compatibility::Strict));
        let stacks = settings.candidates(Some("any")).unwrap();
        assert_eq!(stacks.len(), 1);
        assert_eq!(stacks[0].libs.len(), 2);
        assert_eq!(stacks[0].bind_mounts, [Path::new("/var/opt"), Path::new("/dev/cxi0")]);
    }

    #[test]
    fn of_several_stacks_the_preferred_ones_come_first() {
        let file = r#"{"version": 1, "stacks": [
            {"type": "a", "libs": ["/a"]},
            {"type": "b", "libs": ["/b"], "preference": 5, "dlopenLibs": ["/p"]},
            {"type": "c", "libs": ["/c"]}]}"#;
        let settings = settings(&[("MPI_STACKS", "/etc/stacks.json")], file).unwrap();
        let names = |wanted| -> Vec<String> {
            let stacks = settings.candidates(wanted).unwrap();
            stacks.iter().map(|stack| stack.name.clone()).collect()
        };
        assert_eq!(names(None), ["b", "a", "c"]);
        assert_eq!(names(Some("c")), ["c"]);
        let refused = settings.candidates(Some("d")).unwrap_err().to_string();
        assert!(refused.contains("`d`") && refused.contains("a, b, c"), "{refused}");
    }

    #[test]
    fn what_has_no_meaning_is_refused_by_name() {
        for (variables, file, want) in [
            (&[][..], "", "no MPI of the host"),
            (&[("MPI_LIBS", "libmpi.so")], "", "not an absolute path"),
            (&[("MPI_LIBS", "/a"), ("MPI_COMPATIBILITY_TYPE", "x")], "", "`x`"),
            (&[("MPI_STACKS", "/f")], "{", "`/f` is not valid"),
            (&[("MPI_STACKS", "/f")], r#"{"version": 2, "stacks": []}"#, "version is 2"),
            (
                &[("MPI_STACKS", "/f")],
                r#"{"version":1,"stacks":[{"type":"a","libs":[]}]}"#,
                "no `libs`",
            ),
            (&[("MPI_STACKS", "/f")], r#"{"version":1,"stacks":[{"type":"a","lib":[]}]}"#, "`lib`"),
        ] {
            let refused = settings(variables, file).unwrap_err().to_string();
            assert!(refused.contains(want), "{refused}");
        }
    }
}
