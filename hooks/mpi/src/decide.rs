//! Which stack of the host an image's programs can run with, and if none, why. No I/O.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use sarus_hook::elf::highest;
use sarus_hook::libraries::is_of_libc;

use crate::family::{Family, Kind, Role, version};
use crate::host::{Host, Library};
use crate::image::{Image, Need};
use crate::settings::Compatibility;

/// Most symbols that a message names.
const NAMED_MAX: usize = 3;

/// Why a stack does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The image has other libraries.
    Family { image: String, host: String },
    /// File names are not as the site's mode demands.
    FileVersion { image: PathBuf, host: PathBuf, mode: &'static str },
    /// A program needs what the host's library does not have.
    Symbol { by: PathBuf, names: String, host: PathBuf },
    /// A program needs a version that the host's library does not define.
    Version { by: PathBuf, name: String, host: PathBuf },
    /// A library of the host needs a newer C library.
    Libc { by: PathBuf, name: String, highest: String },
    /// A library of the host needs one that is nowhere.
    Missing { by: PathBuf, name: String },
    /// The stack could not be read.
    Unreadable(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family { image, host } => {
                write!(
                    f,
                    "the image's programs use {image}, and the host's libraries are of {host}"
                )
            }
            Self::FileVersion { image, host, mode } => write!(
                f,
                "`{}` cannot stand for `{}`: the site's `MPI_COMPATIBILITY_TYPE` is `{mode}`",
                host.display(),
                image.display()
            ),
            Self::Symbol { by, names, host } => {
                write!(f, "`{}` needs {names}, which `{}` lacks", by.display(), host.display())
            }
            Self::Version { by, name, host } => {
                let (by, host) = (by.display(), host.display());
                write!(f, "`{by}` needs version `{name}`, which `{host}` does not define")
            }
            Self::Libc { by, name, highest } => write!(
                f,
                "the host's `{}` needs `{name}`, and the image's C library ends at `{highest}`",
                by.display()
            ),
            Self::Missing { by, name } => {
                write!(f, "the host's `{}` needs `{name}`, which is not there", by.display())
            }
            Self::Unreadable(reason) => f.write_str(reason),
        }
    }
}

impl Reason {
    /// What would help.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Libc { .. } => {
                "the glibc hook gives the container the host's newer C library: ask the site to enable \
                 it; or build the image on a newer distribution"
            }
            Self::Family { .. } => {
                "build the program with an MPI of the host's family; without `--mpi` it runs with the \
                 image's own"
            }
            Self::Symbol { .. } | Self::Version { .. } | Self::FileVersion { .. } => {
                "build the program with an MPI that is not newer than the host's; without `--mpi` it \
                 runs with the image's own"
            }
            Self::Missing { .. } | Self::Unreadable(_) => {
                "the site's hook file is wrong: name the library in `MPI_DEPENDENCY_LIBS`, or install it"
            }
        }
    }
}

/// How a stack fits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fit {
    /// For libraries of the host, by index: the image's that each stands for.
    pub(crate) replaced: Vec<(usize, Vec<PathBuf>)>,
    /// What else is to be said.
    pub(crate) notes: Vec<String>,
}

/// Compares a stack with what the image has and needs. The C library is compared by
/// [`compare_libc`], when it is known what goes in.
pub(crate) fn fit(
    host: &Host<'_>,
    image: &Image,
    mode: Option<Compatibility>,
) -> Result<Fit, Vec<Reason>> {
    let wanted = wanted(image);
    let families: BTreeSet<Family> = wanted.iter().map(|kind| kind.family).collect();
    let offered: BTreeSet<&Kind> = host.mpi().map(|(_, kind)| kind).collect();
    let is_core = |kind: &&Kind| kind.role == Role::Core;
    if !wanted.iter().filter(is_core).any(|kind| offered.contains(kind)) {
        let image = say_kinds(wanted.iter());
        return Err(vec![Reason::Family { image, host: say_kinds(offered.into_iter()) }]);
    }
    let mut fit = Fit::default();
    let mut reasons = Vec::new();
    for (index, library) in host.libraries.iter().enumerate() {
        let Some(kind) = &library.kind else { continue };
        let of_kind = image.libraries.iter().filter(|found| found.kind == *kind);
        let paths: Vec<PathBuf> = of_kind.map(|found| found.path.clone()).collect();
        for path in &paths {
            compare_file_versions(path, library, mode, (&mut fit.notes, &mut reasons));
        }
        fit.replaced.push((index, paths));
    }
    for library in &image.libraries {
        if families.contains(&library.kind.family) && !offered.contains(&library.kind) {
            let path = library.path.display();
            fit.notes.push(format!("`{path}` stays: the host has none of its kind"));
        }
    }
    for program in &image.programs {
        let lacking = program.needs.iter().flat_map(|need| lacking(host, need));
        if program.is_command {
            reasons.extend(lacking);
        } else {
            fit.notes.extend(lacking.map(|reason| format!("{reason}, if it is ever called")));
        }
    }
    if reasons.is_empty() { Ok(fit) } else { Err(reasons) }
}

/// The kinds that the command uses; where that is not known those that its arguments use, else
/// all of the image.
fn wanted(image: &Image) -> BTreeSet<Kind> {
    let uses = |is_command: bool| -> BTreeSet<Kind> {
        let programs = image.programs.iter().filter(|program| program.is_command == is_command);
        programs.flat_map(|program| program.uses.iter().cloned()).collect()
    };
    let all = || image.libraries.iter().map(|library| library.kind.clone()).collect();
    [uses(true), uses(false)].into_iter().find(|kinds| !kinds.is_empty()).unwrap_or_else(all)
}

/// `MPICH (libmpi.so.12)`, the main libraries only.
fn say_kinds<'k>(kinds: impl Iterator<Item = &'k Kind>) -> String {
    let core = kinds.filter(|kind| kind.role == Role::Core);
    let said: BTreeSet<String> =
        core.map(|kind| format!("{} (`{}`)", kind.family, kind.names().join("`, `"))).collect();
    if said.is_empty() {
        return "none (no `libmpi`)".to_owned();
    }
    said.into_iter().collect::<Vec<_>>().join(" and ")
}

fn compare_file_versions(
    image: &Path,
    host: &Library,
    mode: Option<Compatibility>,
    (notes, reasons): (&mut Vec<String>, &mut Vec<Reason>),
) {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let [ours, theirs] = [&host.version, &version(&name)]
        .map(|version| [0, 1].map(|part| version.get(part).copied().unwrap_or_default()));
    let refused =
        |mode| Reason::FileVersion { image: image.to_owned(), host: host.path.clone(), mode };
    match mode {
        None => {}
        Some(Compatibility::Major) if ours[0] != theirs[0] => reasons.push(refused("major")),
        Some(Compatibility::Full) if ours[0] != theirs[0] => reasons.push(refused("full")),
        Some(Compatibility::Strict) if ours != theirs => reasons.push(refused("strict")),
        Some(Compatibility::Full) if ours[1] < theirs[1] => {
            let (host, image) = (host.path.display(), image.display());
            notes.push(format!("`{host}` is an older revision than `{image}` by its file's name"));
        }
        Some(_) => {}
    }
}

/// What a file of the image needs and the host's libraries do not have.
fn lacking(host: &Host<'_>, need: &Need) -> Vec<Reason> {
    let of_kind = |kind: &Kind| host.mpi().find(|(_, offered)| *offered == kind);
    // A library that is replaced itself needs nothing any more.
    if need.kind.as_ref().is_some_and(|kind| of_kind(kind).is_some()) {
        return Vec::new();
    }
    let mut reasons = Vec::new();
    for (kind, symbols) in &need.symbols {
        let Some((library, _)) = of_kind(kind) else { continue };
        let is_defined = |name: &&String| host.mpi().any(|(library, _)| library.elf.exports(name));
        let lacking: Vec<&String> = symbols.iter().filter(|name| !is_defined(name)).collect();
        if let Some(names) = say_symbols(&lacking) {
            reasons.push(Reason::Symbol { by: need.by.clone(), names, host: library.path.clone() });
        }
    }
    for (file, name) in &need.versions {
        let kind = Kind::of(file, || false);
        let Some((library, _)) = kind.and_then(|kind| of_kind(&kind)) else { continue };
        // The loader asks nothing of a library that defines no version at all.
        let defined = &library.elf.versions_defined;
        if !defined.is_empty() && !defined.contains(name) {
            let (by, host) = (need.by.clone(), library.path.clone());
            reasons.push(Reason::Version { by, name: name.clone(), host });
        }
    }
    reasons
}

fn say_symbols(names: &[&String]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let said: Vec<String> = names.iter().take(NAMED_MAX).map(|name| format!("`{name}`")).collect();
    let more = names.len().saturating_sub(NAMED_MAX);
    let said = said.join(", ");
    Some(if more == 0 { said } else { format!("{said} and {more} more") })
}

/// Compares the C library that libraries of the host need with the versions that are defined.
pub(crate) fn compare_libc<'l>(
    libraries: impl Iterator<Item = &'l Library>,
    defined: &BTreeSet<String>,
) -> Option<Reason> {
    let mut worst: Option<Reason> = None;
    for library in libraries {
        let needed = library.elf.versions_needed.iter().filter(|(file, _)| is_of_libc(file));
        let lacking: Vec<&String> = needed
            .flat_map(|(_, names)| names)
            .filter(|name| !defined.contains(*name) && *name != "GLIBC_PRIVATE")
            .collect();
        let highest_lacking = highest(lacking.iter().copied(), "GLIBC").map(str::to_owned);
        let Some(name) = highest_lacking.or_else(|| lacking.first().map(|name| (*name).clone()))
        else {
            continue;
        };
        let known = worst.as_ref().and_then(|reason| match reason {
            Reason::Libc { name, .. } => Some(name),
            _ => None,
        });
        if known.is_none_or(|known| highest([known, &name], "GLIBC") != Some(known)) {
            let highest = highest(defined, "GLIBC").unwrap_or("nothing known").to_owned();
            worst = Some(Reason::Libc { by: library.path.clone(), name, highest });
        }
    }
    worst
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
