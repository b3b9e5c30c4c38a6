//! The specifications of a node, and which of them defines a device.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use sarus_hook::Failure;

use super::name::DeviceName;
use super::spec::{Device, FILE_SIZE_MAX, Format, Spec, parse};
use crate::host::Host;

/// Most devices that an error lists.
const LISTED_MAX: usize = 40;

/// All specifications of some directories.
#[derive(Debug)]
pub(crate) struct Registry {
    directories: Vec<PathBuf>,
    files: Vec<File>,
}

/// A file, and what became of it.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    /// The place of its directory: the greater wins.
    pub(crate) rank: usize,
    /// The specification, or why it is none.
    pub(crate) spec: Result<Spec, String>,
}

/// Reads the files `*.json` and `*.yaml` of directories; one that is absent has none. A file that
/// is not valid, or not safe, is kept with the reason: it matters only if no other file has the
/// device.
pub(crate) fn load(directories: Vec<PathBuf>, host: &dyn Host) -> Registry {
    let mut files = Vec::new();
    for (rank, directory) in directories.iter().enumerate() {
        for name in host.names(directory) {
            let format = match Path::new(&name).extension().and_then(|end| end.to_str()) {
                Some("json") => Format::Json,
                Some("yaml") => Format::Yaml,
                _ => continue,
            };
            let path = directory.join(name);
            let spec = match host.distrust(&path) {
                Some(reason) => Err(reason),
                None => read(&path).and_then(|text| parse(&text, format)),
            };
            if let Err(reason) = &spec {
                log::info!("`{}` is no CDI specification: {reason}", path.display());
            }
            files.push(File { path, rank, spec });
        }
    }
    Registry { directories, files }
}

fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(FILE_SIZE_MAX + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_SIZE_MAX {
        return Err(format!("it is larger than {FILE_SIZE_MAX} bytes"));
    }
    Ok(text)
}

impl Registry {
    #[cfg(test)]
    pub(crate) fn new(directories: Vec<PathBuf>, files: Vec<File>) -> Self {
        Self { directories, files }
    }

    /// The file that defines a device, and what it says. Of several files, the one in the last
    /// directory counts.
    ///
    /// # Errors
    ///
    /// Where no file defines the device, or two of one directory do.
    pub(crate) fn find(&self, name: &DeviceName) -> Result<(&File, &Spec, &Device), Failure> {
        let kind = name.kind();
        let of = |file| self.device_of(file, &kind, &name.device);
        let mut found: Vec<_> = self.files.iter().filter_map(of).collect();
        let best = found.iter().map(|(file, ..)| file.rank).max();
        found.retain(|(file, ..)| Some(file.rank) == best);
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(self.unknown(name)),
            [one, other, ..] => {
                let (one, other) = (one.0.path.display(), other.0.path.display());
                Err(Failure::new(format!("the CDI device `{name}` is defined twice"))
                    .because(format!("by `{one}` and by `{other}`"))
                    .hint("remove the device from one of them, or move that file away"))
            }
        }
    }

    fn device_of<'r>(
        &'r self,
        file: &'r File,
        kind: &str,
        device: &str,
    ) -> Option<(&'r File, &'r Spec, &'r Device)> {
        let spec = file.spec.as_ref().ok().filter(|spec| spec.kind == kind)?;
        let device = spec.devices.iter().find(|found| found.name == device)?;
        Some((file, spec, device))
    }

    fn unknown(&self, name: &DeviceName) -> Failure {
        let mut failure = Failure::new(format!("there is no CDI device `{name}` on this node"));
        let mut known: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for spec in self.files.iter().filter_map(|file| file.spec.as_ref().ok()) {
            let devices = spec.devices.iter().map(|device| device.name.as_str());
            known.entry(&spec.kind).or_default().extend(devices);
        }
        for (kind, mut devices) in known {
            devices.sort_unstable();
            devices.dedup();
            let more = devices.len().saturating_sub(LISTED_MAX);
            let mut listed = devices[..devices.len() - more].join(", ");
            if more > 0 {
                listed.push_str(&format!(" and {more} more"));
            }
            failure = failure.because(format!("`{kind}` has the devices {listed}"));
        }
        for file in &self.files {
            let path = file.path.display();
            failure = match &file.spec {
                Ok(spec) => {
                    failure.because(format!("`{path}` is a specification of `{}`", spec.kind))
                }
                Err(reason) => failure.because(format!("`{path}` cannot be used: {reason}")),
            };
        }
        let directories: Vec<String> =
            self.directories.iter().map(|path| format!("`{}`", path.display())).collect();
        if self.files.is_empty() {
            failure = failure
                .because(format!("there is no specification in {}", directories.join(" or ")));
        }
        let last = self.directories.first().map_or(Path::new("/etc/cdi"), PathBuf::as_path);
        let target = last.join(format!("{}.yaml", name.vendor));
        failure.hint(match name.vendor.as_str() {
            "nvidia.com" => format!(
                "check the name; `nvidia-ctk cdi generate --output={}` makes the specification",
                target.display()
            ),
            vendor => format!(
                "check the name; specifications of {vendor} belong into {}",
                directories.join(" or ")
            ),
        })
    }
}
