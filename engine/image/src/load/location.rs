//! Where an image outside a registry is: the words of the command line. No I/O.

use std::path::{Path, PathBuf};

use super::Format;

/// A place that images are loaded from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Where.
    pub place: Place,
    /// What is there; none: its content tells.
    pub format: Option<Format>,
    /// Which of its images; none: all that it has.
    pub wanted: Option<String>,
}

/// Where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Standard input.
    Input,
    /// A file or directory.
    Path(PathBuf),
    /// An image in the storage of Podman, Buildah and Skopeo, by its name.
    Storage(String),
}

impl Location {
    /// A location by its transport, as Skopeo's and Podman's: `docker-archive:FILE[:REFERENCE]`
    /// (`:@N` is the Nth image, from 0), `oci-archive:FILE[:TAG]`, `oci:DIRECTORY[:TAG]`,
    /// `containers-storage:NAME`. None for any other text.
    pub fn with_transport(text: &str) -> Option<Self> {
        let (transport, rest) = text.split_once(':')?;
        let format = match transport {
            "docker-archive" => Format::DockerArchive,
            "oci-archive" => Format::OciArchive,
            "oci" => Format::OciDirectory,
            "containers-storage" => {
                let place = Place::Storage(rest.to_owned());
                return Some(Self { place, format: Some(Format::DockerArchive), wanted: None });
            }
            _ => return None,
        };
        let (path, wanted) = match rest.split_once(':') {
            Some((path, wanted)) => (path, Some(wanted.to_owned()).filter(|it| !it.is_empty())),
            None => (rest, None),
        };
        Some(Self { place: Place::Path(PathBuf::from(path)), format: Some(format), wanted })
    }

    /// What `sarus load` takes: `-`, a transport as above, or the path of a file or directory.
    pub fn of_argument(argument: &Path) -> Self {
        let text = argument.to_str();
        if let Some(location) = text.and_then(Self::with_transport) {
            return location;
        }
        let place = match text {
            Some("-") => Place::Input,
            _ => Place::Path(argument.to_owned()),
        };
        Self { place, format: None, wanted: None }
    }

    /// As messages show it.
    pub(super) fn label(&self) -> String {
        match &self.place {
            Place::Input => "standard input".to_owned(),
            Place::Path(path) => path.display().to_string(),
            Place::Storage(name) => format!("containers-storage:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_taken_apart_as_skopeo_does() {
        let path = |text: &str| Place::Path(PathBuf::from(text));
        for (given, place, format, wanted) in [
            ("-", Place::Input, None, None),
            ("./a:b.tar", path("./a:b.tar"), None, None),
            ("docker-archive:/x/a.tar", path("/x/a.tar"), Some(Format::DockerArchive), None),
            ("docker-archive:a:b:1", path("a"), Some(Format::DockerArchive), Some("b:1")),
            ("docker-archive:a:@2", path("a"), Some(Format::DockerArchive), Some("@2")),
            ("oci-archive:a.tar:", path("a.tar"), Some(Format::OciArchive), None),
            ("oci:dir:v1", path("dir"), Some(Format::OciDirectory), Some("v1")),
            (
                "containers-storage:localhost/a:1",
                Place::Storage("localhost/a:1".to_owned()),
                Some(Format::DockerArchive),
                None,
            ),
        ] {
            let wanted = wanted.map(str::to_owned);
            let want = Location { place, format, wanted };
            assert_eq!(Location::of_argument(Path::new(given)), want, "given {given}");
        }
        for given in ["docker://a", "debian:12", "a"] {
            assert_eq!(Location::with_transport(given), None, "given {given}");
        }
    }
}
