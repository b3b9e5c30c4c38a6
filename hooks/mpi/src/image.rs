//! What of an image decides which MPI of the host fits it. Read in a process without rights.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use sarus_hook::Root;
use sarus_hook::elf::{Elf, Format};
use sarus_hook::libraries::{
    Loader, Object, Rule, configured_directories, default_directories, is_of_libc, list, real,
};
use serde::{Deserialize, Serialize};

use crate::family::Kind;
use crate::host::kind_of;

/// Most MPI libraries and programs that are looked at.
const FILES_MAX: usize = 256;

/// Parts of the C library that define versions of its symbols.
const LIBC_PARTS: [&str; 7] = [
    "libc.so.6",
    "libm.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "librt.so.1",
    "libresolv.so.2",
    "libutil.so.1",
];

/// What is looked for, and how the container's process is started.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The format of the host's libraries.
    pub(crate) format: Format,
    /// The command.
    pub(crate) command: Vec<String>,
    /// Its working directory.
    pub(crate) directory: PathBuf,
    /// Its variables.
    pub(crate) variables: BTreeMap<String, String>,
}

/// An MPI library of the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ImageLibrary {
    /// Where it is, without links.
    pub(crate) path: PathBuf,
    /// Its kind.
    pub(crate) kind: Kind,
    /// The directories by which programs find it, links to it included.
    pub(crate) directories: BTreeSet<PathBuf>,
}

/// What one file needs of the image's MPI libraries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Need {
    /// The file.
    pub(crate) by: PathBuf,
    /// Its kind, if it is an MPI library itself, which may be replaced.
    pub(crate) kind: Option<Kind>,
    /// Functions and variables, by the kind of the image's library that defines them.
    pub(crate) symbols: Vec<(Kind, Vec<String>)>,
    /// Versions, with the library that is to define them.
    pub(crate) versions: Vec<(String, String)>,
}

/// A program of the image, with its libraries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Whether it is the command itself; others may be called or not.
    pub(crate) is_command: bool,
    /// The kinds of MPI libraries that it loads.
    pub(crate) uses: BTreeSet<Kind>,
    /// What it and its libraries need of them.
    pub(crate) needs: Vec<Need>,
}

/// What the command is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// A program that the dynamic loader of glibc loads.
    Dynamic,
    /// A program of another loader: musl's.
    OtherLoader(String),
    /// A program without a loader.
    Static(PathBuf),
    /// A script, or something that could not be read.
    Other,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Whether the loader's cache could be read.
    pub(crate) has_cache: bool,
    /// Whether musl is its C library.
    pub(crate) is_musl: bool,
    /// The versions that its C library defines.
    pub(crate) libc: BTreeSet<String>,
    /// Its MPI libraries.
    pub(crate) libraries: Vec<ImageLibrary>,
    /// The command.
    pub(crate) command: Command,
    /// The command and what it may call, as far as is known.
    pub(crate) programs: Vec<Program>,
}

/// Looks at the image.
pub(crate) fn look(root: Root<'_>, question: &Question) -> Image {
    let library_path = question.variable("LD_LIBRARY_PATH");
    let loader = Loader::new(root, question.format, library_path);
    let command = question.command.first().and_then(|word| question.find(root, word));
    let (kind, interpreted) = match &command {
        Some(path) => command_kind(root, question, path),
        None => (Command::Other, None),
    };
    let mut programs = Vec::new();
    if kind == Command::Dynamic {
        programs.extend(command.iter().filter_map(|path| program(&loader, path, true)));
    }
    for path in question.perhaps_called(root, interpreted.as_deref()) {
        programs.extend(program(&loader, &path, false).filter(|found| !found.uses.is_empty()));
    }
    Image {
        has_cache: loader.has_cache(),
        is_musl: list(root, Path::new("/lib")).iter().any(|name| name.starts_with("ld-musl-")),
        libc: libc_versions(&loader),
        libraries: libraries(&loader, question, &programs),
        command: kind,
        programs,
    }
}

impl Question {
    fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// The file that a word of the command means, as `execvp` finds it.
    fn find(&self, root: Root<'_>, word: &str) -> Option<PathBuf> {
        let is_file = |path: &PathBuf| root.open_file(path).is_ok();
        if word.contains('/') {
            return Some(self.directory.join(word)).filter(is_file);
        }
        let directories = self.variable("PATH").split(':').filter(|path| !path.is_empty());
        directories.map(|directory| self.directory.join(directory).join(word)).find(is_file)
    }

    /// Programs and modules that the command may load: files among its arguments, and mpi4py.
    fn perhaps_called(&self, root: Root<'_>, interpreted: Option<&Path>) -> Vec<PathBuf> {
        let words = self.command.iter().skip(1).flat_map(|word| word.split_whitespace());
        let mut found: Vec<PathBuf> =
            words.take(FILES_MAX).filter_map(|word| self.find(root, word)).collect();
        found.extend(interpreted.map(Path::to_owned));
        let first = self.command.first().map(String::as_str);
        let first = first.and_then(|word| Path::new(word).file_name()?.to_str());
        let names =
            first.into_iter().chain(interpreted.and_then(|path| path.file_name()?.to_str()));
        if names.into_iter().any(|name| name.starts_with("python")) {
            found.extend(self.python_modules(root));
        }
        found
    }

    /// The directories that may hold libraries by their programs' places: `bin/../lib`.
    fn prefixes(&self) -> Vec<PathBuf> {
        let bins = self.variable("PATH").split(':').map(Path::new);
        let own = self.command.first().map(|word| self.directory.join(word));
        let own = own.as_deref().and_then(Path::parent);
        let prefixes = bins.chain(own).filter_map(Path::parent);
        let mut prefixes: Vec<PathBuf> =
            prefixes.filter(|path| path.is_absolute()).map(Path::to_owned).collect();
        prefixes.sort();
        prefixes.dedup();
        prefixes
    }

    /// mpi4py's modules.
    fn python_modules(&self, root: Root<'_>) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = Vec::new();
        for prefix in self.prefixes() {
            let lib = prefix.join("lib");
            let versions = list(root, &lib).into_iter().filter(|name| name.starts_with("python3"));
            for version in versions {
                places.push(lib.join(&version).join("site-packages"));
                places.push(lib.join(&version).join("dist-packages"));
            }
        }
        places.extend(self.variable("PYTHONPATH").split(':').map(PathBuf::from));
        let modules = places.into_iter().map(|place| place.join("mpi4py"));
        let files = modules.flat_map(|module| {
            let names = list(root, &module).into_iter();
            let names = names.filter(|name| name.starts_with("MPI") && name.contains(".so"));
            names.map(move |name| module.join(name)).collect::<Vec<_>>()
        });
        files.take(FILES_MAX).collect()
    }
}

/// What the command is, and the interpreter if it is a script.
fn command_kind(root: Root<'_>, question: &Question, path: &Path) -> (Command, Option<PathBuf>) {
    let mut head = [0; 256];
    let read = root.open_file(path).and_then(|mut file| file.read(&mut head)).unwrap_or_default();
    if let Some(line) = head[..read].strip_prefix(b"#!") {
        let line =
            String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next().unwrap_or(line));
        let mut words = line.split_whitespace();
        let named = words.next().unwrap_or_default();
        let interpreter = question.find(root, named);
        let is_env = Path::new(named).ends_with("env");
        let called = if is_env { words.find(|word| !word.starts_with('-')) } else { None };
        let called = called.and_then(|word| question.find(root, word));
        return (Command::Other, called.or(interpreter));
    }
    let Some(elf) = root.open_file(path).ok().and_then(|file| Elf::read(file).ok()) else {
        return (Command::Other, None);
    };
    let kind = match elf.interpreter {
        None => Command::Static(path.to_owned()),
        Some(loader) if loader.contains("ld-musl") => Command::OtherLoader(loader),
        Some(_) => Command::Dynamic,
    };
    (kind, None)
}

/// What a program needs; nothing if it is none of the format.
fn program(loader: &Loader<'_>, path: &Path, is_command: bool) -> Option<Program> {
    let closure = loader.closure(&[path.to_owned()]);
    let kind = |object: &Object| {
        let elf = &object.found.elf;
        kind_of(elf.soname.as_ref().unwrap_or(&object.name), elf)
    };
    let libraries: Vec<(&Object, Kind)> =
        closure.objects.iter().filter_map(|object| Some((object, kind(object)?))).collect();
    let need = |object: &Object| {
        let undefined = &object.found.elf.undefined;
        let of_library = |(library, kind): &(&Object, Kind)| {
            let exported = &library.found.elf;
            let names = undefined.iter().map(|symbol| symbol.name.as_str());
            let names = names.filter(|name| exported.exports(name)).map(str::to_owned);
            let names: Vec<String> = names.collect();
            (library.real != object.real && !names.is_empty()).then(|| (kind.clone(), names))
        };
        let versions = object.found.elf.versions_needed.iter();
        let versions = versions.filter(|(file, _)| Kind::of(file, || false).is_some());
        let versions = versions
            .flat_map(|(file, names)| names.iter().map(|name| (file.clone(), name.clone())));
        Need {
            by: object.real.clone(),
            kind: kind(object),
            symbols: libraries.iter().filter_map(of_library).collect(),
            versions: versions.collect(),
        }
    };
    let needs = closure.objects.iter().map(need);
    let needs =
        needs.filter(|need| !need.symbols.is_empty() || !need.versions.is_empty()).collect();
    let uses = libraries.iter().map(|(_, kind)| kind.clone()).collect();
    closure.objects.first()?;
    Some(Program { path: path.to_owned(), is_command, uses, needs })
}

fn libc_versions(loader: &Loader<'_>) -> BTreeSet<String> {
    let parts = LIBC_PARTS.iter().filter_map(|name| loader.find(name, &[]));
    let own = parts.flat_map(|found| {
        let elf = &found.elf;
        let loaders = elf.needed.iter().filter(|name| is_of_libc(name));
        let loaders = loaders.filter_map(|name| loader.find(name, &[]));
        let loaders: Vec<_> =
            loaders.flat_map(|found| found.elf.versions_defined.clone()).collect();
        elf.versions_defined.iter().cloned().chain(loaders).collect::<Vec<_>>()
    });
    own.collect()
}

/// All MPI libraries that some program of the image may load.
fn libraries(loader: &Loader<'_>, question: &Question, programs: &[Program]) -> Vec<ImageLibrary> {
    let is_named_so = |name: &str| name.starts_with("libmpi") && name.contains(".so");
    let cached = loader.cached().filter(|(name, _)| is_named_so(name));
    let mut paths: Vec<PathBuf> = cached.flat_map(|(_, paths)| paths.to_vec()).collect();
    for directory in directories(loader, question, programs) {
        let names = list(loader.root(), &directory).into_iter().filter(|name| is_named_so(name));
        paths.extend(names.map(|name| directory.join(name)));
    }
    paths.truncate(FILES_MAX);
    let mut found: BTreeMap<PathBuf, ImageLibrary> = BTreeMap::new();
    for path in paths {
        let Some(elf) = loader.open(&path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(kind) = kind_of(elf.soname.as_deref().unwrap_or(&name), &elf) else { continue };
        let real = real(loader.root(), &path);
        let library = ImageLibrary { path: real.clone(), kind, directories: BTreeSet::new() };
        let library = found.entry(real).or_insert(library);
        library.directories.extend(path.parent().map(Path::to_owned));
    }
    found.into_values().collect()
}

/// Where MPI libraries may be.
fn directories(
    loader: &Loader<'_>,
    question: &Question,
    programs: &[Program],
) -> BTreeSet<PathBuf> {
    let mut bases: Vec<PathBuf> = default_directories().into_iter().map(PathBuf::from).collect();
    bases.extend(configured_directories(loader.root()));
    bases.extend(question.variable("LD_LIBRARY_PATH").split([':', ';']).map(PathBuf::from));
    let prefixes = question.prefixes();
    bases.extend(prefixes.iter().flat_map(|prefix| [prefix.join("lib"), prefix.join("lib64")]));
    let mut directories = BTreeSet::new();
    for base in bases.into_iter().filter(|base| base.is_absolute()) {
        directories.extend(installations(loader.root(), &base));
        directories.insert(base);
    }
    for base in ["/opt", "/usr/local", "/usr/local/lib"] {
        directories.extend(installations(loader.root(), Path::new(base)));
    }
    // Where the loader finds them for the programs that are known, by whatever rule.
    for program in programs {
        for object in loader.closure(std::slice::from_ref(&program.path)).objects {
            if matches!(object.found.rule, Rule::Rpath | Rule::LibraryPath | Rule::Runpath) {
                directories.extend(object.found.path.parent().map(Path::to_owned));
            }
        }
    }
    directories
}

/// The directories of MPI installations below a directory: `/usr/lib64/openmpi/lib`,
/// `/opt/mpich-4.2/lib`.
fn installations(root: Root<'_>, base: &Path) -> Vec<PathBuf> {
    const NAMES: [&str; 3] = ["openmpi", "mpich", "mvapich"];
    let names = list(root, base).into_iter();
    let names = names.filter(|name| NAMES.iter().any(|known| name.starts_with(known)));
    let below = |name: String| ["", "lib", "lib64"].map(|below| base.join(&name).join(below));
    names.take(FILES_MAX).flat_map(below).collect()
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
