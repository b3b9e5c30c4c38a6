//! A stack of the host: its libraries, and all that they need.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sarus_hook::elf::{Elf, Format};
use sarus_hook::libraries::{Loader, Missing, Object, is_of_libc};
use sarus_hook::{Failure, Root};

use crate::family::{Kind, version};
use crate::settings::Stack;

/// Why a library of the host goes into the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is one of the MPI libraries.
    Mpi,
    /// The site names it among the dependencies.
    Listed,
    /// The site names it among those that are opened later.
    OpenedLater,
    /// Another one needs it.
    Needed,
}

/// A library of the host.
#[derive(Debug, Clone)]
pub(crate) struct Library {
    /// Where it is, as the loader finds it.
    pub(crate) path: PathBuf,
    /// The name by which it is asked for.
    pub(crate) soname: String,
    /// For which of the image's libraries it stands.
    pub(crate) kind: Option<Kind>,
    /// The version in its file's name.
    pub(crate) version: Vec<u32>,
    /// Why it goes in.
    pub(crate) why: Why,
    /// What it is.
    pub(crate) elf: Rc<Elf>,
}

/// A stack of the host, looked at.
#[derive(Debug, Clone)]
pub(crate) struct Host<'s> {
    /// As configured.
    pub(crate) stack: &'s Stack,
    /// All libraries but those of the C library, those of MPI first.
    pub(crate) libraries: Vec<Library>,
    /// What they need and what the host does not have.
    pub(crate) missing: Vec<Missing>,
}

impl<'s> Host<'s> {
    /// Reads the stack's libraries and finds what they need.
    ///
    /// # Errors
    ///
    /// Where a file that the site names is not there or no library.
    pub(crate) fn read(stack: &'s Stack) -> Result<Self, Failure> {
        let failed = || Failure::new(format!("cannot use the host's MPI `{}`", stack.name));
        let slash = fs_err::File::open("/").map_err(|error| failed().because(error))?;
        let root = Root(slash.as_fd());
        let (Some(format), named) = (format_of(stack)?, named(stack)) else {
            return Err(failed().because("it has no library"));
        };
        if let Some(path) = stack.bind_mounts.iter().find(|path| !path.exists()) {
            let because = format!("`{}` is not there", path.display());
            return Err(failed().because(because).hint("see the hook's file and `BIND_MOUNTS`"));
        }
        let loader = Loader::new(root, format, "");
        let closure = loader.closure(&named);
        let is_named = |missing: &&Missing| {
            named.contains(&missing.by) && !loader_has(&closure.objects, missing)
        };
        if let Some(missing) = closure.missing.iter().find(is_named) {
            let because = format!("`{}` is no library of this machine", missing.by.display());
            return Err(failed().because(because));
        }
        let library = |object: &Object| library(stack, object);
        let libraries: Vec<Library> = closure.objects.iter().filter_map(library).collect();
        Ok(Self { stack, libraries, missing: closure.missing })
    }

    /// The format of its libraries.
    pub(crate) fn format(&self) -> Option<Format> {
        self.libraries.first().map(|library| library.elf.format)
    }

    /// Its MPI libraries.
    pub(crate) fn mpi(&self) -> impl Iterator<Item = (&Library, &Kind)> {
        self.libraries.iter().filter_map(|library| Some((library, library.kind.as_ref()?)))
    }
}

/// Whether a file itself was read, and what is missing is something that it needs.
fn loader_has(objects: &[Object], missing: &Missing) -> bool {
    objects.iter().any(|object| object.found.path == missing.by)
}

/// All that the site names, MPI libraries first.
fn named(stack: &Stack) -> Vec<PathBuf> {
    [&stack.libs, &stack.dependency_libs, &stack.dlopen_libs]
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}

fn format_of(stack: &Stack) -> Result<Option<Format>, Failure> {
    let Some(path) = stack.libs.first() else { return Ok(None) };
    let failed = || Failure::new(format!("cannot read the host's `{}`", path.display()));
    let file = std::fs::File::open(path).map_err(|error| failed().because(error))?;
    Elf::read(file).map(|elf| Some(elf.format)).map_err(|reason| failed().because(reason))
}

fn library(stack: &Stack, object: &Object) -> Option<Library> {
    let elf = Rc::clone(&object.found.elf);
    let soname = elf.soname.clone().unwrap_or_else(|| object.name.clone());
    let is_in = |list: &[PathBuf]| object.by.is_none() && list.contains(&object.found.path);
    let why = match () {
        () if is_in(&stack.libs) => Why::Mpi,
        () if is_in(&stack.dependency_libs) => Why::Listed,
        () if is_in(&stack.dlopen_libs) => Why::OpenedLater,
        () => Why::Needed,
    };
    let kind = kind_of(&soname, &elf).filter(|_| why == Why::Mpi);
    let names = [&object.found.path, &object.real].map(|path| path.file_name());
    let versions = names.into_iter().flatten().map(|name| version(&name.to_string_lossy()));
    let version = versions.max_by_key(Vec::len).unwrap_or_default();
    let path = plain(&object.found.path);
    (!is_of_libc(&soname)).then_some(Library { path, soname, kind, version, why, elf })
}

/// The kind of an MPI library.
pub(crate) fn kind_of(soname: &str, elf: &Elf) -> Option<Kind> {
    Kind::of(soname, || elf.exports("ompi_mpi_comm_world"))
}

/// The path without `..`, as a name in a directory of our own.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::ParentDir => drop(plain.pop()),
            component => plain.push(component),
        }
    }
    plain
}
