//! OCI hook: gives a container the host's GNU C library where the image's is older.
//!
//! The parts of the C library and its loader fit only each other, so all that the image has are replaced
//! together or none is. Settings and messages: `docs/hooks/glibc.md`.

mod image;
mod replace;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sarus_hook::elf::{Elf, Format};
use sarus_hook::libraries::{Loader, is_of_libc};
use sarus_hook::{Container, Failure, Plan, Root, Step};

use crate::replace::{Decision, Host, decide};

/// The name of the C library itself.
pub(crate) const LIBC: &str = "libc.so.6";

fn main() -> ExitCode {
    sarus_hook::run("glibc", plan)
}

fn plan(container: &Container) -> Result<Plan, Failure> {
    let listed = std::env::var("GLIBC_LIBS").unwrap_or_default();
    let listed: Vec<PathBuf> =
        listed.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    let (format, named) = read_listed(&listed)?;
    let library_path = container.variable("LD_LIBRARY_PATH").unwrap_or_default().to_owned();
    let image = container.survey(move |root| image::look(root, format, &library_path))?;
    let host = complete(named, format, image.files.iter().map(|file| file.soname.as_str()))?;
    let mut plan = Plan::default();
    match decide(&host, &image) {
        Decision::Keep(reason) => plan.note(format!("the image's C library stays: {reason}")),
        Decision::Replace { files, notes } => {
            for (source, destination) in files {
                let reason = "the host's C library is newer, and its parts fit only each other";
                plan.step(Step::bind(source, destination), reason);
            }
            plan.notes.extend(notes);
        }
    }
    Ok(plan)
}

/// Libraries by their names.
type Named = BTreeMap<String, (PathBuf, Elf)>;

fn read(path: &Path) -> Result<Elf, Failure> {
    let failed = || {
        Failure::new(format!("cannot read the host's `{}`", path.display()))
            .hint("see `GLIBC_LIBS` in the hook's file")
    };
    let file = fs_err::File::open(path).map_err(|error| failed().because(error))?;
    Elf::read(file.into_file()).map_err(|reason| failed().because(reason))
}

/// What the site lists; without a list, the C library that this program itself has.
fn read_listed(listed: &[PathBuf]) -> Result<(Format, Named), Failure> {
    let mut named = Named::new();
    for path in listed {
        let elf = read(path)?;
        let name = elf.soname.clone().unwrap_or_default();
        if !is_of_libc(&name) {
            let because = format!("`{}` is no part of the GNU C library", path.display());
            return Err(Failure::new("cannot use `GLIBC_LIBS`").because(because));
        }
        named.insert(name, (path.clone(), elf));
    }
    let format = match named.get(LIBC).or_else(|| named.values().next()) {
        Some((_, elf)) => elf.format,
        None => read(Path::new("/proc/self/exe"))?.format,
    };
    Ok((format, named))
}

/// The host's libraries that the site lists, and for what the image has besides those that the
/// host's loader finds.
fn complete<'n>(
    mut named: Named,
    format: Format,
    wanted: impl Iterator<Item = &'n str>,
) -> Result<Host, Failure> {
    let failed = |error| Failure::new("cannot look at the host's libraries").because(error);
    let slash = fs_err::File::open("/").map_err(failed)?;
    let loader = Loader::new(Root(slash.as_fd()), format, "");
    for name in wanted.chain([LIBC]) {
        // What the image's user may have written is no path of the host's.
        if named.contains_key(name) || name.contains('/') || !is_of_libc(name) {
            continue;
        }
        if let Some(found) = loader.find(name, &[]) {
            named.insert(name.to_owned(), (found.path, (*found.elf).clone()));
        }
    }
    let versions = named.get(LIBC).map(|(_, elf)| elf.versions_defined.clone());
    let paths = named.into_iter().map(|(name, (path, _))| (name, path));
    Ok(Host { versions: versions.unwrap_or_default(), paths: paths.collect() })
}
