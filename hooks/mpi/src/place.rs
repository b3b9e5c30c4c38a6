//! Where the host's libraries go in the container, so that the loader finds them and nothing else.
//!
//! Each goes into a directory of the hook's own, at its path on the host: so what they say of their
//! neighbours (`$ORIGIN`) stays true. The loader's cache names them. The MPI libraries are mounted over
//! the image's besides, and so is any other where the loader would find one of the image's first.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use sarus_hook::elf::Elf;
use sarus_hook::libraries::{Loader, Rule, real};
use sarus_hook::{Plan, Root, Step};
use serde::{Deserialize, Serialize};

use crate::decide::Fit;
use crate::host::{Host, Library, Why};
use crate::image::{Image, Question};

/// The hook's own directory in the container.
const OWN: &str = "/usr/lib/sarus/mpi";

/// Where Sarus 1.7 put what `MPI_DEPENDENCY_LIBS` names.
const LISTED: &str = "/usr/lib";

/// Libraries that know the fabric or the launcher: the host's are taken even where the image's are
/// newer.
const OF_THE_HOST: [&str; 16] = [
    "libfabric",
    "libcxi",
    "libxpmem",
    "libibverbs",
    "librdmacm",
    "libmlx",
    "libefa",
    "libpsm",
    "libuc",
    "libpmi",
    "libpals",
    "libhwloc",
    "libopen-",
    "libevent",
    "libprrte",
    "liblnx",
];

/// What the container's loader would do with the host's libraries.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    /// Names of which the image's own library is at least as new.
    pub(crate) kept: BTreeMap<String, PathBuf>,
    /// Libraries of the host by index, and files of the image that would be found before each.
    pub(crate) first: BTreeSet<(usize, PathBuf)>,
    /// Names that neither the host nor the image has, with who asks for them.
    pub(crate) missing: Vec<(PathBuf, String)>,
}

/// Asks the container's loader. Runs in a process without rights.
pub(crate) fn look(
    root: Root<'_>,
    question: &Question,
    (host, fit, image): (&Host<'_>, &Fit, &Image),
) -> Surroundings {
    let library_path = question.variables.get("LD_LIBRARY_PATH").map_or("", String::as_str);
    let loader = Loader::new(root, question.format, library_path);
    let mut around = Surroundings::default();
    for library in host.libraries.iter().filter(|library| may_be_kept(library)) {
        let Some(found) = loader.find(&library.soname, &[]) else { continue };
        let (theirs, ours) = (&found.elf.versions_defined, &library.elf.versions_defined);
        if !theirs.is_empty() && theirs.is_superset(ours) {
            around.kept.insert(library.soname.clone(), found.path);
        }
    }
    for missing in &host.missing {
        if loader.find(&missing.name, &[]).is_none() {
            around.missing.push((missing.by.clone(), missing.name.clone()));
        }
    }
    let programs = image.programs.iter().filter(|program| program.is_command);
    let program = programs.filter_map(|program| Some((&program.path, loader.open(&program.path)?)));
    let program = program.last();
    let mut askers = first_askers(host, fit, image);
    let mut next = 0;
    while let Some((index, origin)) = askers.get(next).cloned() {
        let elf: &Elf = &host.libraries[index].elf;
        let mut chain = vec![(elf, origin.as_path())];
        if let Some((path, elf)) = &program {
            chain.push((elf, path.parent().unwrap_or(Path::new("/"))));
        }
        for name in &elf.needed {
            let Some(needed) = host.libraries.iter().position(|library| library.soname == *name)
            else {
                continue;
            };
            let Some(found) = loader.find(name, &chain) else { continue };
            let is_before_cache =
                matches!(found.rule, Rule::Rpath | Rule::LibraryPath | Rule::Runpath);
            if !is_before_cache || around.kept.contains_key(name) {
                continue;
            }
            around.first.insert((needed, real(loader.root(), &found.path)));
            let place = (needed, found.path.parent().unwrap_or(Path::new("/")).to_owned());
            if !askers.contains(&place) {
                askers.push(place);
            }
        }
        next += 1;
    }
    around
}

/// The host's libraries by index, with each directory that one is in, as its loader sees it.
fn first_askers(host: &Host<'_>, fit: &Fit, image: &Image) -> Vec<(usize, PathBuf)> {
    let over = fit.replaced.iter().flat_map(|(index, paths)| {
        let found = image.libraries.iter().filter(|library| paths.contains(&library.path));
        found.flat_map(|library| library.directories.iter().map(|path| (*index, path.clone())))
    });
    let own = host.libraries.iter().enumerate().map(|(index, library)| {
        (index, own_path(library).parent().unwrap_or(Path::new("/")).to_owned())
    });
    own.chain(over).collect()
}

/// Whether the image's library may stay where it is newer.
fn may_be_kept(library: &Library) -> bool {
    library.why == Why::Needed && !OF_THE_HOST.iter().any(|stem| library.soname.starts_with(stem))
}

fn own_path(library: &Library) -> PathBuf {
    Path::new(OWN).join(library.path.strip_prefix("/").unwrap_or(&library.path))
}

/// The libraries that go in.
pub(crate) fn injected<'h>(
    host: &'h Host<'_>,
    around: &Surroundings,
) -> impl Iterator<Item = (usize, &'h Library)> {
    let all = host.libraries.iter().enumerate();
    all.filter(|(_, library)| !around.kept.contains_key(&library.soname))
}

/// Adds all steps to the plan.
pub(crate) fn add_steps(plan: &mut Plan, host: &Host<'_>, fit: &Fit, around: &Surroundings) {
    let mut cached = Vec::new();
    for (_, library) in injected(host, around) {
        let own = own_path(library);
        plan.step(Step::bind(&library.path, &own), say_why(library));
        let names = library.kind.as_ref().map(crate::family::Kind::names);
        let names = names.unwrap_or_else(|| vec![library.soname.clone()]);
        cached.extend(names.into_iter().map(|name| (name, own.clone())));
        if library.why == Why::Listed {
            let name = library.path.file_name().unwrap_or_default();
            let listed = Path::new(LISTED).join(name);
            plan.step(Step::bind(&library.path, listed), "the site lists it as a dependency");
        }
    }
    let mut covered = BTreeSet::new();
    for (index, paths) in &fit.replaced {
        let library = &host.libraries[*index];
        for path in paths.iter().filter(|path| covered.insert((*path).clone())) {
            let reason = "the host's stands for the image's library of the same interface";
            plan.step(Step::bind(&library.path, path), reason);
        }
    }
    for (index, path) in &around.first {
        if covered.insert(path.clone()) {
            let reason = "the loader would find the image's before the host's";
            plan.step(Step::bind(&host.libraries[*index].path, path), reason);
        }
    }
    for (name, path) in &around.kept {
        plan.note(format!("`{name}` stays: the image's `{}` is as new", path.display()));
    }
    plan.step(Step::LdCache { libraries: cached }, "programs ask for the libraries by these names");
    for path in &host.stack.bind_mounts {
        bind(plan, path);
    }
}

fn say_why(library: &Library) -> &'static str {
    match library.why {
        Why::Mpi => "the host's MPI",
        Why::Listed => "the site lists it as a dependency of the host's MPI",
        Why::OpenedLater => "the site says that the host's MPI opens it later",
        Why::Needed => "the host's MPI needs it",
    }
}

/// Shows a path of the host: devices, also those in a directory below `/dev`, as devices.
fn bind(plan: &mut Plan, path: &Path) {
    const REASON: &str = "the site says that the host's MPI needs it";
    let is_device = |path: &Path| {
        let kind = path.metadata().map(|found| found.file_type());
        kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
    };
    if is_device(path) {
        return plan.step(Step::device(path), REASON);
    }
    if path.starts_with("/dev") && path.is_dir() {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        let devices: Vec<PathBuf> = paths.into_iter().filter(|path| is_device(path)).collect();
        if !devices.is_empty() {
            for device in devices {
                plan.step(Step::device(device), REASON);
            }
            return;
        }
    }
    let (source, destination) = (path.to_owned(), path.to_owned());
    plan.step(Step::Bind { source, destination, read_only: false }, REASON);
}
