//! Where an image is looked for: short names, rewritten locations, mirrors.
//!
//! Pure rules over [`RegistriesFile`]; asks no network. A name leads to one or more sources,
//! to be tried in order.

use sarus_oci::{DEFAULT_REGISTRY, Reference};

use crate::RegistryError;
use crate::registries_file::{Mirror, RegistriesFile, Rule, Serves, ShortNameMode};

/// The host that serves the registry called `docker.io`.
pub(crate) const DOCKER_API: &str = "registry-1.docker.io";

/// One place an image may be fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    /// Registry as users and configuration call it: `docker.io`, `HOST:PORT`.
    pub(crate) registry: String,
    /// Repository in it, after rewriting.
    pub(crate) repository: String,
    /// HTTP, and TLS without verification, are allowed.
    pub(crate) insecure: bool,
    /// Not where the name says, so that a failure here is not the end.
    pub(crate) mirror: bool,
    /// The reference as the user would write it in full, without rewriting.
    pub(crate) reference: Reference,
}

impl Source {
    /// The host, and port, that serves the registry's API.
    pub(crate) fn host(&self) -> &str {
        api_host(&self.registry)
    }

    /// Registry and repository, for messages and for looking up credentials.
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}

/// The host, and port, that serves the API of `registry`.
pub(crate) fn api_host(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY { DOCKER_API } else { registry }
}

/// The places to try for `reference`, in order: at least one.
///
/// A short name leads to its alias, else to each search registry, else to docker.io. A search
/// registry that is blocked is left out, unless it is the only one.
pub(crate) fn sources(
    file: &RegistriesFile,
    reference: &Reference,
) -> Result<Vec<Source>, RegistryError> {
    let mut sources = Vec::new();
    let mut blocked = None;
    for candidate in candidates(file, reference)? {
        match places(file, &candidate) {
            Ok(places) => sources.extend(places),
            Err(error @ RegistryError::Blocked { .. }) => {
                log::debug!("{error}");
                blocked.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    match blocked {
        Some(error) if sources.is_empty() => Err(error),
        _ => Ok(sources),
    }
}

/// Whether the configuration allows `registry` to be insecure as a whole.
pub(crate) fn is_insecure(file: &RegistriesFile, registry: &str) -> bool {
    find(file, registry).is_some_and(|(_, _, rule)| rule.insecure)
}

/// The complete names a reference may stand for.
fn candidates(
    file: &RegistriesFile,
    reference: &Reference,
) -> Result<Vec<Reference>, RegistryError> {
    let Some(short) = reference.short_name() else { return Ok(vec![reference.clone()]) };
    if let Some(target) = file.aliases.get(short).filter(|target| !target.is_empty()) {
        return Ok(vec![reference.renamed(target)?]);
    }
    match file.search.as_deref() {
        None | Some([]) => Ok(vec![reference.with_registry(DEFAULT_REGISTRY)?]),
        Some(registries @ [_, _, ..]) if file.short_name_mode == Some(ShortNameMode::Enforcing) => {
            let names = registries.iter().map(|registry| format!("{registry}/{short}")).collect();
            Err(RegistryError::ShortName { name: short.to_owned(), names })
        }
        Some(registries) => registries
            .iter()
            .map(|registry| Ok(reference.renamed(&format!("{registry}/{short}"))?))
            .collect(),
    }
}

/// The mirrors of a complete name and then its own location.
fn places(file: &RegistriesFile, reference: &Reference) -> Result<Vec<Source>, RegistryError> {
    let name = reference.name();
    let Some((prefix, matched, rule)) = find(file, &name) else {
        return Ok(vec![source(reference, &name, false)?]);
    };
    if rule.blocked {
        return Err(RegistryError::Blocked { name, prefix: prefix.to_owned() });
    }
    let rest = &name[matched..];
    let mut places = Vec::new();
    for Mirror { location, insecure, serves } in &rule.mirrors {
        let asked = match serves {
            Serves::All => true,
            Serves::Digests => reference.digest().is_some(),
            Serves::Tags => reference.digest().is_none(),
        };
        if asked {
            let mut place = source(reference, &format!("{location}{rest}"), *insecure)?;
            place.mirror = true;
            places.push(place);
        }
    }
    let own = rule.location.as_ref().map_or_else(|| name.clone(), |to| format!("{to}{rest}"));
    places.push(source(reference, &own, rule.insecure)?);
    Ok(places)
}

fn source(reference: &Reference, name: &str, insecure: bool) -> Result<Source, RegistryError> {
    let renamed = reference.renamed(name)?;
    Ok(Source {
        registry: renamed.registry().to_owned(),
        repository: renamed.repository().to_owned(),
        insecure,
        mirror: false,
        reference: reference.renamed(&reference.name())?,
    })
}

/// The rule with the longest prefix of `name`, and how many bytes of it the prefix stands for.
fn find<'a>(file: &'a RegistriesFile, name: &str) -> Option<(&'a str, usize, &'a Rule)> {
    let mut best: Option<(&str, usize, &Rule)> = None;
    for (prefix, rule) in &file.rules {
        let Some(matched) = match_prefix(prefix, name) else { continue };
        if best.is_none_or(|(known, _, _)| prefix.len() > known.len()) {
            best = Some((prefix, matched, rule));
        }
    }
    best
}

/// A prefix ends where a part of the name does. `*.example.org` matches each host below it, and not the
/// port, which a location that takes its place keeps.
fn match_prefix(prefix: &str, name: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        Some(domain) => {
            let host = &name[..name.find('/').unwrap_or(name.len())];
            let (bare, port) = host.split_once(':').map_or((host, ""), |(bare, port)| (bare, port));
            match domain.split_once(':') {
                Some((domain, wanted)) => {
                    (bare.ends_with(domain) && port == wanted).then_some(host.len())?
                }
                None => bare.ends_with(domain).then_some(bare.len())?,
            }
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    matches!(name.as_bytes().get(end), None | Some(b'/' | b':' | b'@')).then_some(end)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const FILE: &str = r#"
        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.site:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "digests.site"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.site"
        pull-from-mirror = "tag-only"
        [[registry]]
        prefix = "digests.org"
        location = "digests.org"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "mirror.org/d"
        [[registry]]
        prefix = "docker.io/private"
        location = "other.site/p"
        [[registry]]
        prefix = "*.lab.org"
        insecure = true
        [[registry]]
        prefix = "*.moved.org"
        location = "new.org/old"
        [[registry]]
        prefix = "*.ports.org"
        location = "host.org"
        [[registry]]
        prefix = "bad.org"
        blocked = true
    "#;

    fn places_of(reference: &str) -> Vec<String> {
        let file = crate::registries_file::parse(FILE, Path::new("f")).unwrap();
        let reference = Reference::parse(reference).unwrap();
        match sources(&file, &reference) {
            Ok(sources) => sources
                .iter()
                .map(|it| format!("{}{}", it.place(), if it.insecure { " insecure" } else { "" }))
                .collect(),
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn a_short_name_with_several_meanings_is_refused_where_the_mode_is_enforcing() {
        let search = "unqualified-search-registries = [\"a.org\", \"b.org\"]\n";
        for (text, want) in [
            ("short-name-mode = \"enforcing\"", Err("short name `x` may mean more than one image")),
            ("short-name-mode = \"permissive\"", Ok(2)),
            ("short-name-mode = \"disabled\"", Ok(2)),
            ("short-name-mode = \"\"", Ok(2)),
            ("", Ok(2)),
            ("short-name-mode = \"enforcing\"\n[aliases]\nx = \"c.org/x\"", Ok(1)),
            ("[[registry]]\nlocation = \"a.org\"\nblocked = true", Ok(1)),
            ("[[registry]]\nprefix = \"*.org\"\nblocked = true", Err("`a.org/x` is blocked")),
        ] {
            let text = format!("{search}{text}");
            let file = crate::registries_file::parse(&text, Path::new("f")).unwrap();
            let found = sources(&file, &Reference::parse("x").unwrap());
            match (found, want) {
                (Ok(found), Ok(count)) => assert_eq!(found.len(), count, "{text}"),
                (Err(error), Err(want)) => assert!(error.to_string().contains(want), "{error}"),
                (found, want) => panic!("{text}: {found:?} instead of {want:?}"),
            }
        }
    }

    #[test]
    fn the_longest_prefix_decides_and_mirrors_come_first() {
        let digest = format!("debian@sha256:{}", "0".repeat(64));
        for (given, want) in [
            (
                "debian",
                &[
                    "mirror.site:5000/hub/library/debian insecure",
                    "tags.site/library/debian",
                    "docker.io/library/debian",
                ][..],
            ),
            ("digests.org/x:1", &["digests.org/x"]),
            (
                &format!("digests.org/x@sha256:{}", "0".repeat(64)),
                &["mirror.org/d/x", "digests.org/x"],
            ),
            (
                &digest,
                &[
                    "mirror.site:5000/hub/library/debian insecure",
                    "digests.site/library/debian",
                    "docker.io/library/debian",
                ],
            ),
            ("private/a", &["other.site/p/a"]),
            (
                "privatea/a",
                &[
                    "mirror.site:5000/hub/privatea/a insecure",
                    "tags.site/privatea/a",
                    "docker.io/privatea/a",
                ],
            ),
            ("a.lab.org/x", &["a.lab.org/x insecure"]),
            ("a.lab.org:5000/x", &["a.lab.org:5000/x insecure"]),
            ("lab.org/x", &["lab.org/x"]),
            ("alab.org/x", &["alab.org/x"]),
            ("a.moved.org/x/y", &["new.org/old/x/y"]),
            ("a.ports.org:5000/x", &["host.org:5000/x"]),
            ("a.ports.org/x", &["host.org/x"]),
            ("bad.org/x", &["`bad.org/x` is blocked by the registries configuration (`bad.org`)"]),
            (
                "bad.org:5000/x",
                &["`bad.org:5000/x` is blocked by the registries configuration (`bad.org`)"],
            ),
        ] {
            assert_eq!(places_of(given), want, "given {given}");
        }
    }
}
