//! registries.d: at which places signatures are looked for in the registry itself.
//!
//! Specification: containers-registries.d(5), of which only `use-sigstore-attachments` matters:
//! GPG signatures in a lookaside are not supported. What is unknown here is left to others; a
//! key that is misspelt leaves an image unsigned, and so out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sarus_oci::Reference;
use sarus_policy::Subject;
use serde::Deserialize;

use crate::registries_file::bare;
use crate::{ConfigError, Environment};

/// What all files say.
#[derive(Debug, Default)]
pub(crate) struct RegistriesD {
    default: Option<(Namespace, PathBuf)>,
    namespaces: BTreeMap<String, (Namespace, PathBuf)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    default_docker: Option<Namespace>,
    #[serde(default)]
    docker: Option<BTreeMap<String, Option<Namespace>>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Namespace {
    use_sigstore_attachments: Option<bool>,
}

/// Reads the directory that applies: the user's, where there is one, else the site's, else the
/// system's.
pub(crate) fn load(
    environment: &Environment,
    site: Option<&Path>,
) -> Result<RegistriesD, ConfigError> {
    let mut all = RegistriesD::default();
    let system = || environment.etc().join("containers/registries.d");
    let mut folders = environment.user_registries_d();
    folders.push(site.map_or_else(system, Path::to_owned));
    let Some(folder) = folders.into_iter().find(|folder| folder.is_dir()) else { return Ok(all) };
    for path in files(&folder)? {
        let text = fs_err::read_to_string(&path)
            .map_err(|error| ConfigError::Read { path: path.clone(), source: bare(&error) })?;
        all.add(&text, &path)?;
    }
    Ok(all)
}

/// The `*.yaml` files of a directory, sorted by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable =
        |error: std::io::Error| ConfigError::Read { path: folder.to_owned(), source: bare(&error) };
    let mut paths = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(unreadable)? {
        paths.push(entry.map_err(unreadable)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    Ok(paths)
}

impl RegistriesD {
    /// Adds what one file says. Two files that speak of the same place contradict each other.
    fn add(&mut self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let invalid = |message: String| ConfigError::Yaml { path: path.to_owned(), message };
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(());
        }
        let file: File = serde_saphyr::from_str(text).map_err(|error| {
            let message = error.to_string();
            invalid(message.lines().next().unwrap_or("this is no YAML").to_owned())
        })?;
        let twice = |key: &str, other: &Path| {
            invalid(format!("`{key}` is defined in `{}` too", other.display()))
        };
        if let Some(default) = file.default_docker {
            if let Some((_, other)) = &self.default {
                return Err(twice("default-docker", other));
            }
            self.default = Some((default, path.to_owned()));
        }
        for (scope, namespace) in file.docker.unwrap_or_default() {
            if let Some((_, other)) = self.namespaces.get(&scope) {
                return Err(twice(&scope, other));
            }
            self.namespaces.insert(scope, (namespace.unwrap_or_default(), path.to_owned()));
        }
        Ok(())
    }

    /// Whether signatures are looked for beside the image at `place`, a name after rewriting.
    ///
    /// The most specific namespace that says something decides, then the default; else not.
    pub(crate) fn uses_attachments(&self, place: &Reference) -> bool {
        let scopes = Subject::Registry(place).scopes();
        let said = scopes
            .iter()
            .filter_map(|scope| self.namespaces.get(scope))
            .chain(&self.default)
            .find_map(|(namespace, _)| namespace.use_sigstore_attachments);
        said.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_namespace_that_says_something_decides() {
        let mut all = RegistriesD::default();
        let one = "# comment\ndefault-docker:\n  lookaside: file:///x\n  use-sigstore-attachments: true\n\
                   docker:\n  a.org:\n    use-sigstore-attachments: false\n  a.org/b:\n    sigstore: y\n  empty.org:\n";
        all.add(one, Path::new("1.yaml")).unwrap();
        let two = "docker:\n  a.org/b/c:\n    use-sigstore-attachments: true\n  '*.d.org':\n    use-sigstore-attachments: false\n";
        all.add(two, Path::new("2.yaml")).unwrap();
        all.add("\n# nothing\n", Path::new("3.yaml")).unwrap();
        for (name, want) in [
            ("other.org/x:1", true),
            ("empty.org/x:1", true),
            ("a.org/x:1", false),
            ("a.org/b:1", false),
            ("a.org/b/c:1", true),
            ("e.d.org/x", false),
        ] {
            assert_eq!(all.uses_attachments(&Reference::parse(name).unwrap()), want, "{name}");
        }
        assert!(!RegistriesD::default().uses_attachments(&Reference::parse("x").unwrap()));
    }

    #[test]
    fn mistakes_are_told_with_the_file() {
        let first = "docker:\n  a.org:\n    use-sigstore-attachments: true\ndefault-docker: {}\n";
        for (text, want) in [
            ("docker: {a.org: {}}", "`a.org` is defined in `1.yaml` too"),
            ("default-docker: {}", "`default-docker` is defined in `1.yaml` too"),
            ("docker: {b.org: {use-sigstore-attachments: maybe}}", "`2.yaml`: "),
            ("docker: [", "`2.yaml`: "),
        ] {
            let mut all = RegistriesD::default();
            all.add(first, Path::new("1.yaml")).unwrap();
            let error = all.add(text, Path::new("2.yaml")).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
