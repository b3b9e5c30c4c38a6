//! Looks at the image, without any rights: where libraries belong, and what is there already.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use sarus_hook::{Container, Failure};
use sarus_sys::root::Root;
use serde::{Deserialize, Serialize};

use super::{HostGpus, steps};

/// Where NVIDIA's images have driver libraries that are newer than the host's.
const COMPAT: &str = "/usr/local/cuda/compat";

/// Dynamic loaders of the GNU C library.
const LOADERS: [&str; 5] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib64/ld64.so.2",
    "/lib/ld64.so.1",
    "/etc/ld.so.cache",
];

/// Most entries of a directory that are looked at.
const ENTRIES_MAX: usize = 1000;

/// What of the image decides the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Its programs can use libraries that were made for the GNU C library.
    pub(crate) has_glibc: bool,
    /// Where its loader looks for libraries.
    pub(crate) libraries: PathBuf,
    /// The same for programs of 32 bits.
    pub(crate) libraries_32: PathBuf,
    /// Paths at which it has files that are no symbolic links, of those that links are wanted at.
    pub(crate) occupied: BTreeSet<PathBuf>,
    /// Newer libraries of its own.
    pub(crate) compat: Option<Compat>,
}

/// The image's own libraries of a driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compat {
    /// Version of the driver that they belong to.
    pub(crate) version: String,
    /// Name by which programs ask for each, and its path.
    pub(crate) libraries: Vec<(String, PathBuf)>,
}

/// Looks at the container's root. Without one, what most images have is assumed.
pub(crate) fn look(container: &Container, host: &HostGpus) -> Result<Image, Failure> {
    if container.root().is_err() {
        return Ok(Image {
            has_glibc: true,
            libraries: "/usr/lib64".into(),
            libraries_32: "/usr/lib".into(),
            ..Image::default()
        });
    }
    container.survey(|root| survey(root, host))
}

fn survey(root: Root<'_>, host: &HostGpus) -> Image {
    let has = |path: &str| root.resolve(Path::new(path)).is_ok();
    let first = |paths: &[&str]| {
        let found = paths.iter().find(|path| has(path));
        PathBuf::from(found.or(paths.last()).copied().unwrap_or("/usr/lib"))
    };
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut image = Image {
        has_glibc: LOADERS.iter().any(|path| has(path)),
        libraries: first(&[&triplet, "/usr/lib64", "/usr/lib"]),
        libraries_32: first(&["/usr/lib/i386-linux-gnu", "/usr/lib"]),
        occupied: BTreeSet::new(),
        compat: compat(root),
    };
    let wanted = host.libraries.iter().flat_map(|library| steps::links(library, &image));
    image.occupied = wanted.map(|(_, path)| path).filter(|path| is_no_link(root, path)).collect();
    image
}

fn is_no_link(root: Root<'_>, path: &Path) -> bool {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return false };
    let Ok(directory) = root.resolve(directory) else { return false };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let found = rustix::fs::statat(&directory, name, flags);
    found.is_ok_and(|found| {
        rustix::fs::FileType::from_raw_mode(found.st_mode) != rustix::fs::FileType::Symlink
    })
}

/// Newer NVIDIA images have a directory of libraries that go with their CUDA.
fn compat(root: Root<'_>) -> Option<Compat> {
    let directory = root.resolve(Path::new(COMPAT)).ok()?;
    let here = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let entries = std::fs::read_dir(here).ok()?.take(ENTRIES_MAX).flatten();
    let names: BTreeSet<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let version = names.iter().find_map(|name| {
        name.strip_prefix("libcuda.so.").filter(|version| version.contains('.'))
    })?;
    let libraries = names.iter().filter(|name| {
        let version = name.split_once(".so.").map(|(_, version)| version);
        version.is_some_and(|v| !v.is_empty() && v.bytes().all(|byte| byte.is_ascii_digit()))
    });
    Some(Compat {
        version: version.to_owned(),
        libraries: libraries.map(|name| (name.clone(), Path::new(COMPAT).join(name))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::nvidia::Library;

    #[test]
    fn an_image_tells_where_libraries_belong_and_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        };
        write("usr/lib64/libcuda.so.1");
        write("etc/ld.so.cache");
        write("usr/local/cuda/compat/libcuda.so.550.54");
        write("usr/local/cuda/compat/libcuda.so.1");
        write("usr/local/cuda/compat/libcuda.so");
        let root = fs_err::File::open(folder.path()).unwrap();
        let library = Library {
            name: "libcuda.so".into(),
            soname: "libcuda.so.1".into(),
            path: "/usr/lib/libcuda.so.535.1".into(),
            is_32: false,
        };
        let host = HostGpus { libraries: vec![library], ..HostGpus::default() };
        let want = Image {
            has_glibc: true,
            libraries: "/usr/lib64".into(),
            libraries_32: "/usr/lib".into(),
            occupied: BTreeSet::from([PathBuf::from("/usr/lib64/libcuda.so.1")]),
            compat: Some(Compat {
                version: "550.54".into(),
                libraries: vec![(
                    "libcuda.so.1".into(),
                    PathBuf::from("/usr/local/cuda/compat/libcuda.so.1"),
                )],
            }),
        };
        assert_eq!(survey(Root(root.file().as_fd()), &host), want);
    }

    #[test]
    fn an_image_with_nothing_has_no_libraries_to_offer() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs_err::File::open(folder.path()).unwrap();
        let image = survey(Root(root.file().as_fd()), &HostGpus::default());
        assert!(!image.has_glibc);
        assert_eq!(image.libraries, Path::new("/usr/lib"));
        assert_eq!(image.compat, None);
    }
}
