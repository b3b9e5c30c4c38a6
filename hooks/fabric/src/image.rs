//! What the image has of what the host's libraries need. Read in a process without rights, since a
//! user wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use sarus_hook::Root;
use sarus_hook::elf::{Elf, highest};
use sarus_hook::libraries::{Loader, is_of_libc};
use serde::{Deserialize, Serialize};

use crate::node::{Files, LIBFABRIC, Library, Node};

/// Most names of what is missing that are said.
const NAMES_MAX: usize = 3;

/// The image, as far as a plan needs it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Directory of its C library, which its loader always searches; none in an image of another
    /// C library's, or with static programs only.
    pub(crate) libc: Option<PathBuf>,
    pub(crate) libfabric: Option<Libfabric>,
    /// What it has of the libraries that the host's need, by name.
    pub(crate) libraries: BTreeMap<String, Has>,
    /// For a library of the host's, what its C library lacks, in words.
    pub(crate) lacks: BTreeMap<PathBuf, String>,
}

/// The image's libfabric.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Libfabric {
    /// Where the loader finds it.
    pub(crate) path: PathBuf,
    /// The versions that it defines: `FABRIC_1.6`.
    pub(crate) versions: BTreeSet<String>,
}

/// What an image has under a library's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Has {
    /// Nothing.
    Nothing,
    /// A library that the host's can use.
    Enough,
    /// A library that they cannot use, but which the host's own can stand for.
    Less(PathBuf),
    /// A library that they cannot use and that others may need, and why.
    Other(String),
}

/// Looks at the image. `library_path` is its `LD_LIBRARY_PATH`, `directories` are searched for
/// libfabric besides.
pub(crate) fn look(
    root: Root<'_>,
    node: &Node<'_>,
    library_path: &str,
    directories: &[PathBuf],
) -> Image {
    let Some(format) = node.files().map(|files| files.first().elf.format).next() else {
        return Image::default();
    };
    let loader = Loader::new(root, format, library_path);
    let libc = loader.find("libc.so.6", &[]);
    let mut image = Image {
        libc: libc.and_then(|found| found.path.parent().map(Path::to_owned)),
        libfabric: libfabric(&loader, directories),
        ..Image::default()
    };
    for files in node.files() {
        for (index, library) in files.libraries.iter().enumerate() {
            if let Some(lacks) = libc_lacks(&loader, &library.elf) {
                image.lacks.insert(library.path.clone(), lacks);
            }
            if index > 0 {
                let users = node.files().flat_map(|files| &files.libraries);
                let has = has(&loader, library, users);
                image.libraries.insert(library.name.clone(), has);
            }
        }
    }
    image
}

fn libfabric(loader: &Loader<'_>, directories: &[PathBuf]) -> Option<Libfabric> {
    let by_loader = loader.find(LIBFABRIC, &[]).map(|found| (found.path, found.elf));
    let elsewhere = || {
        let mut paths = directories.iter().map(|directory| directory.join(LIBFABRIC));
        paths.find_map(|path| loader.open(&path).map(|elf| (path, elf)))
    };
    let (path, elf) = by_loader.or_else(elsewhere)?;
    Some(Libfabric { path, versions: elf.versions_defined.clone() })
}

/// What a library needs of the C library and the image's does not define.
fn libc_lacks(loader: &Loader<'_>, elf: &Elf) -> Option<String> {
    for (name, versions) in elf.versions_needed.iter().filter(|(name, _)| is_of_libc(name)) {
        let found = loader.find(name, &[]);
        let defined = found.map(|found| found.elf.versions_defined.clone()).unwrap_or_default();
        let missing: BTreeSet<String> = versions.difference(&defined).cloned().collect();
        if let Some(needed) = highest(&missing, "GLIBC").or(missing.first().map(String::as_str)) {
            let has = match highest(&defined, "GLIBC") {
                Some(has) => format!("the image's `{name}` ends with {has}"),
                None => format!("the image has no `{name}`"),
            };
            return Some(format!("{needed} ({has})"));
        }
    }
    None
}

/// What the image has of a library that `users`, all the host's, may need.
fn has<'f>(
    loader: &Loader<'_>,
    library: &Library,
    users: impl Iterator<Item = &'f Library>,
) -> Has {
    let Some(found) = loader.find(&library.name, &[]) else { return Has::Nothing };
    let mut lacks = BTreeSet::new();
    for user in users.filter(|user| user.elf.needed.contains(&library.name)) {
        let versions = user.elf.versions_needed.get(&library.name);
        let versions = versions.into_iter().flatten();
        lacks.extend(versions.filter(|v| !found.elf.versions_defined.contains(*v)).cloned());
        let of_it = user.elf.undefined.iter().filter(|symbol| library.elf.exports(&symbol.name));
        let missing = of_it.filter(|symbol| !found.elf.exports(&symbol.name));
        lacks.extend(missing.map(|symbol| symbol.name.clone()));
    }
    if lacks.is_empty() {
        return Has::Enough;
    }
    let lost = |elf: &Elf| {
        let versions = elf.versions_defined.difference(&library.elf.versions_defined);
        let symbols = elf.exported.iter().map(|symbol| &symbol.name);
        let symbols = symbols.filter(|name| !library.elf.exports(name));
        versions.chain(symbols).next().cloned()
    };
    match lost(&found.elf) {
        None => Has::Less(found.path),
        Some(lost) => {
            let names: Vec<String> = lacks.into_iter().take(NAMES_MAX).collect();
            let (path, names) = (found.path.display(), names.join(", "));
            let own = library.path.display();
            Has::Other(format!("`{path}` has no {names}, and `{own}` has no {lost}"))
        }
    }
}

/// What a set of libraries lacks of libfabric's versions.
pub(crate) fn libfabric_lacks(files: &Files, versions: &BTreeSet<String>) -> Option<String> {
    let missing: BTreeSet<String> = files
        .libfabric_versions()
        .filter(|version| !versions.contains(*version))
        .cloned()
        .collect();
    let needed = highest(&missing, "FABRIC")?;
    let has = highest(versions, "FABRIC").unwrap_or("none");
    Some(format!("`{}` needs {needed}, libfabric ends with {has}", files.first().path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::process::Command;

    use crate::{config, node};

    /// Compiles a library: its source, its versions and what it is linked with.
    fn compile(path: &Path, source: &str, versions: &str, flags: &[&str]) {
        let directory = path.parent().unwrap();
        fs_err::create_dir_all(directory).unwrap();
        fs_err::write(directory.join("source.c"), source).unwrap();
        fs_err::write(directory.join("versions"), versions).unwrap();
        let soname = format!("-Wl,-soname,{}", path.file_name().unwrap().display());
        let mut gcc = Command::new("gcc");
        gcc.args(["-w", "-shared", "-fPIC", "-nostdlib", "source.c", &soname, "-o"]).arg(path);
        let script = "-Wl,--version-script,versions";
        let output = gcc.arg(script).args(flags).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn what_the_image_has_is_compared_with_what_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let host = directory.path().join("host");
        let dep = host.join("libdep.so.1");
        let uses = "void one(void); void two(void); void use(void) { one(); two(); }";
        compile(&dep, "void one(void) {} void two(void) {}", "V_1 { *; };", &[]);
        let provider = host.join("libx-fi.so");
        let flags = [dep.to_str().unwrap(), "-Wl,-rpath,$ORIGIN"];
        compile(&provider, uses, "{ *; };", &flags);
        let text = format!(
            r#"{{"version": 1, "providers": [{{"name": "x", "library": "{}"}}]}}"#,
            provider.display()
        );
        let config = config::parse(&text).unwrap();
        let node = node::look(&config, true, |_| None).unwrap();
        let root = directory.path().join("image");
        std::fs::create_dir(&root).unwrap();
        let opened = std::fs::File::open(&root).unwrap();
        let seen = || look(Root(opened.as_fd()), &node, "/opt", &["/fabric".into()]);
        let has = || seen().libraries.remove("libdep.so.1").unwrap();
        assert_eq!(has(), Has::Nothing);
        let library = root.join("opt/libdep.so.1");
        for (source, versions, want) in [
            ("void one(void) {} void two(void) {}", "V_1 { *; };", Some(Has::Enough)),
            ("void one(void) {}", "V_1 { *; };", Some(Has::Less("/opt/libdep.so.1".into()))),
            ("void one(void) {} void two(void) {}", "V_0 { *; };", None),
            ("void one(void) {} void other(void) {}", "V_1 { *; };", None),
        ] {
            compile(&library, source, versions, &[]);
            match (want, has()) {
                (Some(want), has) => assert_eq!(has, want, "{source}"),
                (None, has) => assert!(matches!(has, Has::Other(_)), "{source}: {has:?}"),
            }
        }
        assert_eq!((seen().libc, seen().libfabric), (None, None));
        compile(&root.join("fabric/libfabric.so.1"), "void f(void) {}", "FABRIC_1.0 { *; };", &[]);
        let libfabric = seen().libfabric.unwrap();
        assert_eq!(libfabric.path, Path::new("/fabric/libfabric.so.1"));
        assert_eq!(libfabric.versions, BTreeSet::from(["FABRIC_1.0".to_owned()]));
    }
}
