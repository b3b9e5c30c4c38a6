//! How the dynamic loader of glibc finds libraries, in the host's root or in a container's.
//!
//! Rules: `ld.so(8)`, "DESCRIPTION", and `_dl_map_object` in `elf/dl-load.c` of glibc. Left out are the
//! subdirectories for some processors (`glibc-hwcaps`) of directories that are not in the cache.
//!
//! In a container's root this reads what a user wrote: call it in [`crate::Container::survey`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Dir, Mode, OFlags, openat};
use sarus_sys::root::Root;

use crate::elf::{Elf, Format};
use crate::ld_cache;

/// The dynamic loader's cache.
pub const LD_CACHE: &str = "/etc/ld.so.cache";

/// Most objects in one closure; no real program has as many.
const OBJECTS_MAX: usize = 4096;

/// Deepest nesting of `include` in `ld.so.conf`.
const INCLUDE_DEPTH_MAX: usize = 8;

/// Which rule led to a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// It was asked for by path.
    Path,
    /// `DT_RPATH` of who asked, of its own loaders, or of the program.
    Rpath,
    /// `LD_LIBRARY_PATH`
    LibraryPath,
    /// `DT_RUNPATH` of who asked.
    Runpath,
    /// `/etc/ld.so.cache`
    Cache,
    /// A directory that is searched without being named.
    Default,
}

/// A library that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where, as the loader writes it: links in it are not resolved.
    pub path: PathBuf,
    /// By which rule.
    pub rule: Rule,
    /// What it is.
    pub elf: Rc<Elf>,
}

/// A file in memory: a program, or a library that it loaded.
#[derive(Debug, Clone)]
pub struct Object {
    /// The name by which it was asked for.
    pub name: String,
    /// Where it was found, and how.
    pub found: Found,
    /// The same without links.
    pub real: PathBuf,
    /// Who asked first, as an index of the closure's objects.
    pub by: Option<usize>,
}

/// A library that no rule leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// Who asks for it.
    pub by: PathBuf,
}

/// All that is loaded with some files, in the loader's order.
#[derive(Debug, Clone, Default)]
pub struct Closure {
    /// The files themselves and what they need.
    pub objects: Vec<Object>,
    /// What they need and what is not there.
    pub missing: Vec<Missing>,
}

/// The loader in one root, for programs of one format.
#[derive(Debug)]
pub struct Loader<'r> {
    root: Root<'r>,
    format: Format,
    library_path: Vec<String>,
    cache: HashMap<String, Vec<PathBuf>>,
    known: RefCell<HashMap<PathBuf, Option<Rc<Elf>>>>,
}

impl<'r> Loader<'r> {
    /// Reads the cache of the root. `library_path` is `LD_LIBRARY_PATH`, or empty.
    pub fn new(root: Root<'r>, format: Format, library_path: &str) -> Self {
        let mut cache: HashMap<String, Vec<PathBuf>> = HashMap::new();
        let bytes = read(root, Path::new(LD_CACHE)).unwrap_or_default();
        for entry in ld_cache::entries(&bytes).unwrap_or_default() {
            if let Some(name) = entry.name.to_str() {
                cache.entry(name.to_owned()).or_default().push(entry.path.to_owned());
            }
        }
        let library_path = library_path.split([':', ';']).map(str::to_owned).collect();
        Self { root, format, library_path, cache, known: RefCell::default() }
    }

    /// Whether the root has a cache that could be read.
    pub fn has_cache(&self) -> bool {
        !self.cache.is_empty()
    }

    /// The names that the cache knows, and where the loader would look for each.
    pub fn cached(&self) -> impl Iterator<Item = (&str, &[PathBuf])> {
        self.cache.iter().map(|(name, paths)| (name.as_str(), paths.as_slice()))
    }

    /// The root.
    pub fn root(&self) -> Root<'r> {
        self.root
    }

    /// The file at a path, if it is an ELF file of the format.
    pub fn open(&self, path: &Path) -> Option<Rc<Elf>> {
        if let Some(known) = self.known.borrow().get(path) {
            return known.clone();
        }
        let file = self.root.open_file(path).ok();
        let elf = file.and_then(|file| Elf::read(file).ok());
        let elf = elf.filter(|elf| elf.format == self.format).map(Rc::new);
        self.known.borrow_mut().insert(path.to_owned(), elf.clone());
        elf
    }

    /// Where the loader finds a library: `askers` are who asks for it and the directory that it
    /// is in, who asked for that, and so on up to the program.
    pub fn find(&self, name: &str, askers: &[(&Elf, &Path)]) -> Option<Found> {
        let found = |path: PathBuf, rule| self.open(&path).map(|elf| Found { path, rule, elf });
        let origin = askers.first().map_or(Path::new("/"), |(_, origin)| origin);
        if name.contains('/') {
            return expand(name, origin).into_iter().find_map(|path| found(path, Rule::Path));
        }
        let search = |directories: &[String], origin: &Path, rule| {
            let directories = directories.iter().flat_map(|directory| expand(directory, origin));
            let mut paths = directories.map(|directory| directory.join(name));
            paths.find_map(|path| found(path, rule))
        };
        let asker = askers.first().map(|(elf, _)| *elf);
        let rpath = || {
            let mut chain = askers.iter().filter(|(elf, _)| elf.runpath.is_empty());
            let allowed = asker.is_none_or(|elf| elf.runpath.is_empty());
            let mut search =
                |(elf, origin): &(&Elf, &Path)| search(&elf.rpath, origin, Rule::Rpath);
            if allowed { chain.find_map(&mut search) } else { None }
        };
        let program = askers.last().map_or(Path::new("/"), |(_, origin)| origin);
        let runpath = || {
            let (elf, origin) = askers.first()?;
            search(&elf.runpath, origin, Rule::Runpath)
        };
        let unnamed = || {
            if asker.is_some_and(|elf| elf.no_default) {
                return None;
            }
            let mut cached = self.cache.get(name).into_iter().flatten();
            cached
                .find_map(|path| found(path.clone(), Rule::Cache))
                .or_else(|| search(&default_directories(), Path::new("/"), Rule::Default))
        };
        rpath()
            .or_else(|| search(&self.library_path, program, Rule::LibraryPath))
            .or_else(runpath)
            .or_else(unnamed)
    }

    /// The files at `paths` and all that they need. The first is the program, if there is one. A
    /// path that leads to no ELF file of the format is missing.
    pub fn closure(&self, paths: &[PathBuf]) -> Closure {
        let mut closure = Closure::default();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            match self.open(path) {
                Some(elf) => {
                    let found = Found { path: path.clone(), rule: Rule::Path, elf };
                    self.load(&mut closure, name, found, None);
                }
                None => closure.missing.push(Missing { name, by: path.clone() }),
            }
        }
        let mut next = 0;
        while next < closure.objects.len() && closure.objects.len() < OBJECTS_MAX {
            let elf = Rc::clone(&closure.objects[next].found.elf);
            for name in &elf.needed {
                let is_it = |object: &Object| {
                    object.name == *name || object.found.elf.soname.as_ref() == Some(name)
                };
                if closure.objects.iter().any(is_it) {
                    continue;
                }
                match self.find(name, &askers(&closure.objects, next)) {
                    Some(found) => self.load(&mut closure, name.clone(), found, Some(next)),
                    None => {
                        let by = closure.objects[next].found.path.clone();
                        closure.missing.push(Missing { name: name.clone(), by });
                    }
                }
            }
            next += 1;
        }
        closure
    }

    fn load(&self, closure: &mut Closure, name: String, found: Found, by: Option<usize>) {
        let real = real(self.root, &found.path);
        if !closure.objects.iter().any(|object| object.real == real) {
            closure.objects.push(Object { name, found, real, by });
        }
    }
}

/// Who asks and where it is, up to who was asked for by nobody.
fn askers(objects: &[Object], first: usize) -> Vec<(&Elf, &Path)> {
    let chain = std::iter::successors(Some(first), |index| objects[*index].by);
    let objects = chain.map(|index| &objects[index]);
    objects
        .map(|object| {
            // A program's origin is what the kernel says of it, a library's what it was found by.
            let path = if object.by.is_none() { &object.real } else { &object.found.path };
            (&*object.found.elf, path.parent().unwrap_or(Path::new("/")))
        })
        .collect()
}

/// A search directory with the loader's variables in it replaced; `$LIB` differs by distribution.
fn expand(directory: &str, origin: &Path) -> Vec<PathBuf> {
    let replace = |text: String, name: &str, value: &str| {
        text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
    };
    let text = replace(directory.to_owned(), "ORIGIN", &origin.to_string_lossy());
    let text = replace(text, "PLATFORM", std::env::consts::ARCH);
    let multiarch = format!("lib/{}", multiarch());
    let values = [multiarch.as_str(), "lib64", "lib"];
    let mut expanded: Vec<PathBuf> = values
        .iter()
        .map(|value| normal(Path::new(&replace(text.clone(), "LIB", value))))
        .collect();
    expanded.dedup();
    // Without a leading slash it counts from the working directory, which no site relies on.
    expanded.retain(|path| path.is_absolute());
    expanded
}

/// The path without `.`; `..` stays, since what is before it may be a link.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

fn multiarch() -> String {
    let arch = match std::env::consts::ARCH {
        "powerpc64" => "powerpc64le",
        arch => arch,
    };
    format!("{arch}-linux-gnu")
}

/// The directories that distributions build into their loaders.
pub fn default_directories() -> Vec<String> {
    let multiarch = multiarch();
    let own = [format!("/lib/{multiarch}"), format!("/usr/lib/{multiarch}")];
    let common = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(str::to_owned);
    own.into_iter().chain(common).collect()
}

/// The directories that `ld.so.conf` of a root names for its cache.
pub fn configured_directories(root: Root<'_>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    read_ld_so_conf(root, Path::new("/etc/ld.so.conf"), 0, &mut found);
    found
}

fn read_ld_so_conf(root: Root<'_>, path: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let text = read(root, path).unwrap_or_default();
    for line in String::from_utf8_lossy(&text).lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(pattern) = line.strip_prefix("include").filter(|_| depth < INCLUDE_DEPTH_MAX) {
            let pattern = Path::new("/etc").join(pattern.trim());
            let directory = pattern.parent().unwrap_or(Path::new("/"));
            let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let (before, after) = name.split_once('*').unwrap_or((&name, ""));
            let mut names = list(root, directory);
            names.retain(|name| name.starts_with(before) && name.ends_with(after));
            names.sort();
            for name in names {
                read_ld_so_conf(root, &directory.join(name), depth + 1, found);
            }
        } else if line.starts_with('/') {
            found.push(PathBuf::from(line));
        }
    }
}

/// The names in a directory of a root; none where it cannot be read.
pub fn list(root: Root<'_>, directory: &Path) -> Vec<String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = root.resolve(directory).ok();
    let opened = opened.and_then(|found| openat(&found, ".", flags, Mode::empty()).ok());
    let entries = opened.and_then(|opened| Dir::new(opened).ok()).into_iter().flatten();
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.to_owned()));
    names.filter(|name| name != "." && name != "..").collect()
}

/// The path of a file in its root without links; the path as given where it leads to nothing.
pub fn real(root: Root<'_>, path: &Path) -> PathBuf {
    let of = |descriptor: BorrowedFd<'_>| {
        std::fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
    };
    let attempt = || {
        let target = of(root.resolve(path)?.as_fd())?;
        let below = target.strip_prefix(of(root.0)?).map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(Path::new("/").join(below))
    };
    attempt().unwrap_or_else(|_missing| path.to_owned())
}

/// The bytes of a file of a root, up to the limit of a cache.
fn read(root: Root<'_>, path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = root.open_file(path)?;
    file.take(ld_cache::SIZE_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a library is part of the GNU C library, whose parts fit only each other and their
/// loader.
pub fn is_of_libc(soname: &str) -> bool {
    const PARTS: [&str; 22] = [
        "ld-linux",
        "ld64",
        "libc",
        "libm",
        "libmvec",
        "libpthread",
        "libdl",
        "librt",
        "libutil",
        "libresolv",
        "libanl",
        "libnsl",
        "libBrokenLocale",
        "libthread_db",
        "libnss_files",
        "libnss_dns",
        "libnss_compat",
        "libnss_db",
        "libnss_hesiod",
        "libc_malloc_debug",
        "libmemusage",
        "libpcprofile",
    ];
    let stem = soname.split(".so").next().unwrap_or_default();
    PARTS.contains(&stem) && (stem != "libnsl" || soname == "libnsl.so.1")
        || soname.starts_with("ld-linux-")
}

#[cfg(test)]
#[path = "libraries_tests.rs"]
mod tests;
