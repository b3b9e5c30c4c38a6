//! What is asked about: an image at a place, and the scopes of a policy that may speak of it.
//!
//! Specification: containers-policy.json(5), "Supported transports and their scopes".

use std::borrow::Cow;
use std::path::Path;

use sarus_oci::Reference;

/// An image, as a policy names it. Paths are absolute and without symbolic links: what the
/// policy is asked about must be what is read.
#[derive(Debug, Clone)]
pub enum Subject<'a> {
    /// In a registry, by its complete name: before rewriting and mirrors.
    Registry(&'a Reference),
    /// In a file or a directory; none where it comes from a stream, which only the rule for the
    /// whole transport speaks of.
    File(Transport, Option<&'a Path>),
    /// In another engine's storage.
    ContainersStorage {
        /// Its driver and root directory, where they are known; else only the rule for the whole
        /// transport speaks of the image.
        storage: Option<(&'a str, &'a Path)>,
        /// The image's complete name.
        reference: &'a Reference,
    },
}

/// Kinds of files and directories that hold an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `docker-archive`: has one scope, the empty one.
    DockerArchive,
    /// `oci-archive`: a tar file of an OCI layout.
    OciArchive,
    /// `oci`: an OCI layout in a directory.
    Oci,
    /// `tarball`: a root file system; has one scope, the empty one.
    Tarball,
    /// `sif`: a Singularity image.
    Sif,
    /// `squashfs`: a name of ours; scopes are paths.
    Squashfs,
}

impl Transport {
    /// As it is written in a policy.
    pub fn name(self) -> &'static str {
        match self {
            Self::DockerArchive => "docker-archive",
            Self::OciArchive => "oci-archive",
            Self::Oci => "oci",
            Self::Tarball => "tarball",
            Self::Sif => "sif",
            Self::Squashfs => "squashfs",
        }
    }

    fn has_path_scopes(self) -> bool {
        !matches!(self, Self::DockerArchive | Self::Tarball)
    }
}

impl Subject<'_> {
    /// The transport, as it is written in a policy.
    pub fn transport(&self) -> &'static str {
        match self {
            Self::Registry(_) => "docker",
            Self::File(transport, _) => transport.name(),
            Self::ContainersStorage { .. } => "containers-storage",
        }
    }

    /// The image's name, where it has one that a signature could speak of.
    pub(crate) fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Registry(reference) | Self::ContainersStorage { reference, .. } => {
                Some(reference)
            }
            Self::File(..) => None,
        }
    }

    /// For messages.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Registry(reference) => reference.to_string(),
            Self::File(transport, None) => transport.name().to_owned(),
            Self::File(transport, Some(path)) => format!("{}:{}", transport.name(), path.display()),
            Self::ContainersStorage { reference, .. } => format!("containers-storage:{reference}"),
        }
    }

    /// The scopes that speak of it within its transport, the most specific first; the last is
    /// the empty one.
    pub fn scopes(&self) -> Vec<String> {
        let mut scopes = match self {
            Self::Registry(reference) => of_reference(reference),
            Self::File(transport, Some(path)) if transport.has_path_scopes() => of_path(path),
            Self::File(..) | Self::ContainersStorage { storage: None, .. } => Vec::new(),
            Self::ContainersStorage { storage: Some((driver, root)), reference } => {
                let storage = format!("[{driver}@{}]", root.display());
                let mut scopes: Vec<String> =
                    names(reference).iter().map(|name| format!("{storage}{name}")).collect();
                scopes.extend([storage, format!("[{}]", root.display())]);
                scopes
            }
        };
        scopes.push(String::new());
        scopes
    }
}

/// The exact name, then the repository and what is above it down to the host.
fn names(reference: &Reference) -> Vec<String> {
    let name = reference.name();
    let exact = match (reference.digest(), reference.tag()) {
        // Where there are both, the digest decides what is fetched.
        (Some(digest), _) => format!("{name}@{digest}"),
        (None, tag) => format!("{name}:{}", tag.unwrap_or(sarus_oci::DEFAULT_TAG)),
    };
    let ends = name.rmatch_indices('/').map(|(at, _)| at);
    let above = std::iter::once(name.len()).chain(ends).map(|end| name[..end].to_owned());
    std::iter::once(exact).chain(above).collect()
}

/// After the host come wildcards: `a.b.org:5000`, `*.b.org`, `*.org`.
fn of_reference(reference: &Reference) -> Vec<String> {
    let mut scopes = names(reference);
    let registry = reference.registry();
    let mut host = registry.split_once(':').map_or(registry, |(host, _port)| host);
    while let Some((_first, rest)) = host.split_once('.') {
        scopes.push(format!("*.{rest}"));
        host = rest;
    }
    scopes
}

/// The path and the directories above it but `/`.
fn of_path(path: &Path) -> Vec<String> {
    let above = path.ancestors().filter(|path| path.parent().is_some());
    above.map(|path| path.to_string_lossy()).map(Cow::into_owned).collect()
}

/// Why `scope` cannot be one of `transport`'s, if it cannot. Unknown transports have any.
pub(crate) fn check_scope(transport: &str, scope: &str) -> Result<(), String> {
    match transport {
        "docker-archive" | "tarball" => {
            Err(format!("`{transport}` has no scope but the empty one"))
        }
        "oci" | "oci-archive" | "dir" | "sif" | "squashfs" => check_path(scope),
        _ => Ok(()),
    }
}

fn check_path(scope: &str) -> Result<(), String> {
    if !scope.starts_with('/') {
        return Err("a scope must be an absolute path".to_owned());
    }
    if scope == "/" {
        return Err("the scope for all paths is the empty one".to_owned());
    }
    let canonical = scope.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    if canonical { Ok(()) } else { Err("the path is not in its shortest form".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_go_from_the_exact_name_to_the_empty_one() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (given, want) in [
            (
                "a.b.org:5000/team/app:1",
                &[
                    "a.b.org:5000/team/app:1",
                    "a.b.org:5000/team/app",
                    "a.b.org:5000/team",
                    "a.b.org:5000",
                    "*.b.org",
                    "*.org",
                    "",
                ][..],
            ),
            (
                "busybox",
                &[
                    "docker.io/library/busybox:latest",
                    "docker.io/library/busybox",
                    "docker.io/library",
                    "docker.io",
                    "*.io",
                    "",
                ],
            ),
            (
                &format!("localhost/x:1@{digest}"),
                &[&format!("localhost/x@{digest}"), "localhost/x", "localhost", ""],
            ),
        ] {
            let reference = Reference::parse(given).unwrap();
            assert_eq!(Subject::Registry(&reference).scopes(), want, "given {given}");
        }
    }

    #[test]
    fn scopes_of_files_are_paths_where_the_transport_has_such() {
        let path = Path::new("/data/images/a.tar");
        for (transport, want) in [
            (Transport::Oci, &["/data/images/a.tar", "/data/images", "/data", ""][..]),
            (Transport::OciArchive, &["/data/images/a.tar", "/data/images", "/data", ""]),
            (Transport::DockerArchive, &[""]),
            (Transport::Tarball, &[""]),
        ] {
            assert_eq!(Subject::File(transport, Some(path)).scopes(), want, "{transport:?}");
            assert_eq!(Subject::File(transport, None).scopes(), [""], "{transport:?}");
        }
    }

    #[test]
    fn scopes_of_a_storage_begin_with_the_storage() {
        let reference = &Reference::parse("a.org/b:1").unwrap();
        let storage = Some(("overlay", Path::new("/var/lib/c")));
        let scopes = Subject::ContainersStorage { storage, reference }.scopes();
        let want = [
            "[overlay@/var/lib/c]a.org/b:1",
            "[overlay@/var/lib/c]a.org/b",
            "[overlay@/var/lib/c]a.org",
            "[overlay@/var/lib/c]",
            "[/var/lib/c]",
            "",
        ];
        assert_eq!(scopes, want);
        assert_eq!(Subject::ContainersStorage { storage: None, reference }.scopes(), [""]);
    }
}
