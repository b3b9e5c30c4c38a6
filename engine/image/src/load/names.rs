//! What loaded images are called. No I/O.

use std::path::Path;

use sarus_oci::Reference;

use super::LoadError;
use super::location::{Location, Place};

/// Registry of names that no registry has, as Podman's.
const LOCAL: &str = "localhost";

/// Endings of archives, which are no part of a name; longest first.
const ENDINGS: [&str; 17] = [
    ".tar.zstd",
    ".squashfs",
    ".tar.zst",
    ".tar.gz",
    ".sqfs",
    ".sqsh",
    ".tzst",
    ".oci",
    ".sfs",
    ".sif",
    ".tar",
    ".tgz",
    ".zst",
    ".gz",
    ".img",
    ".zstd",
    ".docker",
];

/// The names of each of several images, from what the archive calls them.
///
/// `given` is for exactly one image. Without it, a name with a registry, a repository or a tag is
/// taken as Docker would; what is a tag only, or nothing, gets `localhost/FILE`.
///
/// # Errors
///
/// An image without a name, several where one is given, a name that is none.
pub(super) fn names(
    location: &Location,
    given: Option<&Reference>,
    archived: &[&[String]],
) -> Result<Vec<Vec<Reference>>, LoadError> {
    let from = location.label();
    if archived.is_empty() {
        return Err(LoadError::Empty { from });
    }
    if let Some(given) = given {
        if archived.len() > 1 {
            let names = archived.iter().copied().flatten().cloned().collect();
            return Err(LoadError::Several { from, count: archived.len(), names });
        }
        return Ok(vec![vec![given.clone()]]);
    }
    let unnamed = archived.iter().filter(|names| names.is_empty()).count();
    if unnamed > 1 || (unnamed == 1 && archived.len() > 1) {
        return Err(LoadError::NoName { from });
    }
    let of = |names: &&[String]| {
        let mut references = match names {
            [] => vec![local(location, "latest")?],
            _ => names.iter().map(|name| complete(location, name)).collect::<Result<_, _>>()?,
        };
        references.dedup();
        Ok(references)
    };
    archived.iter().map(of).collect()
}

/// What Sarus 1.7 called `load/NAME`, a loaded image, is NAME here: so that its job scripts find
/// it. None for any other reference.
pub(crate) fn without_server(reference: &Reference) -> Option<Reference> {
    let rest = reference.short_name()?.strip_prefix("load/")?;
    let tag = reference.tag().unwrap_or(sarus_oci::DEFAULT_TAG);
    Reference::parse(&format!("{rest}:{tag}")).ok().filter(|_| reference.digest().is_none())
}

/// What the archive calls an image, as a reference.
fn complete(location: &Location, name: &str) -> Result<Reference, LoadError> {
    if !name.contains(['/', ':']) {
        return local(location, name);
    }
    let bad = |source| LoadError::BadName { from: location.label(), name: name.to_owned(), source };
    let reference = Reference::parse(name).map_err(bad)?;
    match reference.digest() {
        None => Ok(reference),
        Some(_) => Err(LoadError::NameWithDigest { name: name.to_owned() }),
    }
}

/// `localhost/FILE:TAG`.
fn local(location: &Location, tag: &str) -> Result<Reference, LoadError> {
    let none = || LoadError::NoName { from: location.label() };
    let stem = match &location.place {
        Place::Path(path) => stem(path).ok_or_else(none)?,
        Place::Input | Place::Storage(_) => return Err(none()),
    };
    Reference::parse(&format!("{LOCAL}/{stem}:{tag}")).map_err(|_no_tag| none())
}

/// A component of a repository out of a file's name.
fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let stem = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(&name);
    let mut component = String::new();
    for c in stem.chars() {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            component.push(c);
        } else if !component.is_empty() && !component.ends_with(['-', '_', '.']) {
            // Between letters and digits stands one of these, once.
            component.push(if matches!(c, '.' | '_') { c } else { '-' });
        }
    }
    let component = component.trim_end_matches(['-', '_', '.']);
    (!component.is_empty()).then(|| component.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Location {
        Location::of_argument(Path::new(path))
    }

    fn named(
        location: &Location,
        given: Option<&str>,
        archived: &[&[&str]],
    ) -> Result<String, String> {
        let owned: Vec<Vec<String>> = archived
            .iter()
            .map(|names| names.iter().map(|name| (*name).to_owned()).collect())
            .collect();
        let slices: Vec<&[String]> = owned.iter().map(Vec::as_slice).collect();
        let given = given.map(|given| Reference::parse(given).unwrap());
        let found = names(location, given.as_ref(), &slices).map_err(|error| error.to_string())?;
        let line = |names: &Vec<Reference>| {
            names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        Ok(found.iter().map(line).collect::<Vec<_>>().join(" | "))
    }

    #[test]
    fn images_are_called_as_the_archive_says_else_after_the_file() {
        let tar = file("/data/My App_v1.tar.gz");
        for (archived, want) in [
            (&[&["debian:12"][..]][..], "docker.io/library/debian:12"),
            (&[&["localhost/a:1", "quay.io/b/c"][..]], "localhost/a:1 quay.io/b/c:latest"),
            (&[&["v2"][..]], "localhost/my-app_v1:v2"),
            (&[&[][..]], "localhost/my-app_v1:latest"),
            (&[&["a:1"][..], &["b:1"]], "docker.io/library/a:1 | docker.io/library/b:1"),
        ] {
            assert_eq!(named(&tar, None, archived).as_deref(), Ok(want), "{archived:?}");
        }
        assert_eq!(
            named(&tar, Some("x"), &[&["a:1"]]).as_deref(),
            Ok("docker.io/library/x:latest")
        );
    }

    #[test]
    fn names_of_sarus_1_7_lead_to_the_same_image() {
        for (given, want) in [
            ("load/library/debian:12", Some("docker.io/library/debian:12")),
            ("load/me/app", Some("docker.io/me/app:latest")),
            ("debian:12", None),
            ("quay.io/load/app", None),
        ] {
            let found = without_server(&Reference::parse(given).unwrap());
            assert_eq!(found.map(|name| name.to_string()).as_deref(), want, "given {given}");
        }
    }

    #[test]
    fn a_name_that_is_missing_or_would_be_two_images_is_asked_for() {
        let input = file("-");
        for (location, given, archived) in [
            (&input, None, &[&[][..]][..]),
            (&input, None, &[&["latest"][..]]),
            (&input, Some("x"), &[&["a:1"][..], &["b:1"]]),
            (&file("a.tar"), None, &[&[][..], &[]]),
            (&file("a.tar"), None, &[]),
            (&file("---.tar"), None, &[&[][..]]),
            (&file("a.tar"), None, &[&["A/B:1"][..]]),
        ] {
            assert!(named(location, given, archived).is_err(), "{given:?} {archived:?}");
        }
    }
}
