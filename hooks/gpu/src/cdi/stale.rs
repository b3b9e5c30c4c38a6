//! Recognises a specification that no longer fits the node: after an update of the driver the paths
//! in it are gone, or are of another version than what is loaded.

use std::path::Path;

use sarus_hook::Failure;

use super::edits::Origin;
use super::spec::Node;
use crate::host::{Found, Host};

/// Most causes that an error lists.
const LISTED_MAX: usize = 6;

/// What of a device does not fit.
pub(crate) struct Stale<'h> {
    host: &'h dyn Host,
    /// Version of the NVIDIA driver that is loaded.
    driver: Option<&'h str>,
    problems: Vec<String>,
}

/// The driver's version in a library's name: `libcuda.so.535.104.05`. Versions of other things
/// have smaller numbers.
pub(crate) fn driver_version(path: &Path) -> Option<&str> {
    let (_, version) = path.file_name()?.to_str()?.split_once(".so.")?;
    let mut numbers = version.split('.');
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let first = numbers.next().filter(|first| first.len() >= 3 && is_number(first));
    let rest: Vec<&str> = numbers.collect();
    (first.is_some() && !rest.is_empty() && rest.iter().all(|part| is_number(part)))
        .then_some(version)
}

impl<'h> Stale<'h> {
    pub(crate) fn new(host: &'h dyn Host, driver: Option<&'h str>) -> Self {
        Self { host, driver, problems: Vec::new() }
    }

    pub(crate) fn host(&self) -> &'h dyn Host {
        self.host
    }

    /// What the source of a mount is; its absence is a problem.
    pub(crate) fn source(&mut self, path: &Path) -> Option<Found> {
        let found = self.host.look(path);
        let shown = path.display();
        if found.is_none() {
            self.problems.push(format!("`{shown}` is missing{}", self.instead(path)));
        } else if let Some((of, now)) = self.versions(path).filter(|(of, now)| of != now) {
            self.problems.push(format!("`{shown}` is of the driver's version {of}, not {now}"));
        }
        found
    }

    /// The version that a library's name says, and the one that is loaded, or where that is not
    /// known the one that programs on the host would find.
    fn versions(&self, path: &Path) -> Option<(String, String)> {
        let of = driver_version(path)?;
        if let Some(loaded) = self.driver {
            return Some((of.to_owned(), loaded.to_owned()));
        }
        let (stem, _) = path.file_name()?.to_str()?.split_once(".so.")?;
        let link = self.host.link(&path.with_file_name(format!("{stem}.so.1")))?;
        Some((of.to_owned(), driver_version(&link)?.to_owned()))
    }

    /// What of the same name there is in another version.
    fn instead(&self, path: &Path) -> String {
        let stem =
            path.file_name().and_then(|name| name.to_str()).and_then(|n| n.split_once(".so."));
        let (Some((stem, _)), Some(directory)) = (stem, path.parent()) else {
            return String::new();
        };
        let begin = format!("{stem}.so.");
        let names = self.host.names(directory);
        match names
            .iter()
            .find(|name| name.starts_with(&begin) && driver_version(Path::new(name)).is_some())
        {
            Some(name) => format!("; there is `{name}` instead"),
            None => String::new(),
        }
    }

    /// What a device node is; one that is absent or another is a problem.
    pub(crate) fn node(&mut self, path: &Path, node: &Node) -> Option<Found> {
        let found = self.host.look(path);
        let shown = path.display();
        let kind = node.kind.as_deref().filter(|kind| !kind.is_empty());
        let problem = match found {
            None => Some(format!("the device node `{shown}` is missing")),
            Some(Found::Device { kind: is, major, minor }) => {
                let wanted = kind.map_or(is, |kind| if kind == "b" { 'b' } else { 'c' });
                let is_pipe = kind == Some("p");
                let other =
                    |wanted: Option<i64>, is: u32| wanted.is_some_and(|w| w != i64::from(is));
                // A number alone says nothing: encoders leave a 0 out.
                let differs = kind.is_some()
                    && node.major.is_some()
                    && (other(node.major, major) || other(node.minor, minor));
                (is_pipe || wanted != is || differs).then(|| {
                    format!(
                        "`{shown}` is the device {is} {major}:{minor}, not {} {}:{}",
                        kind.unwrap_or_default(),
                        node.major.unwrap_or_default(),
                        node.minor.unwrap_or_default()
                    )
                })
            }
            Some(Found::Other) if kind.is_none_or(|kind| kind == "p") => None,
            Some(_) => Some(format!("`{shown}` is not a device node")),
        };
        match problem {
            Some(problem) => {
                self.problems.push(problem);
                None
            }
            None => found,
        }
    }

    /// Whether a hook's program is there; its absence is a problem.
    pub(crate) fn program(&mut self, path: &Path) -> bool {
        let problem = match self.host.look(path) {
            Some(Found::File { executable: true }) => return true,
            Some(_) => "is not executable",
            None => "is missing",
        };
        self.problems.push(format!("the hook `{}` {problem}", path.display()));
        false
    }

    /// An error if there were problems.
    pub(crate) fn into_result(self, origin: &Origin<'_>) -> Result<(), Failure> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let path = origin.file.path.display();
        let mut failure = Failure::new(format!(
            "the specification `{path}` of the CDI device `{}` is out of date",
            origin.name
        ));
        for problem in self.problems.iter().take(LISTED_MAX) {
            failure = failure.because(problem);
        }
        if let Some(more) = self.problems.len().checked_sub(LISTED_MAX).filter(|more| *more > 0) {
            failure = failure.because(format!("and {more} more"));
        }
        let vendor = &origin.name.vendor;
        Err(failure.hint(match vendor.as_str() {
            "nvidia.com" => format!("make it anew, as root: `nvidia-ctk cdi generate --output={path}`"),
            _ => format!(
                "make it anew with the tool of {vendor} (NVIDIA's is `nvidia-ctk cdi generate --output={path}`)"
            ),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_librarys_name_tells_the_drivers_version() {
        for (path, want) in [
            ("/usr/lib/libcuda.so.535.104.05", Some("535.104.05")),
            ("/usr/lib/libcuda.so.535.1", Some("535.1")),
            ("/usr/lib/libnvidia-ml.so.1", None),
            ("/usr/lib/libnvidia-egl-wayland.so.1.1.11", None),
            ("/usr/lib/libx.so.2024", None),
            ("/usr/lib/libcuda.so.535.x", None),
            ("/usr/lib/libcuda.so", None),
            ("/", None),
        ] {
            assert_eq!(driver_version(Path::new(path)), want, "{path}");
        }
    }
}
