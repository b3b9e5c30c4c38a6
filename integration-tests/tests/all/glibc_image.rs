//! Images with the machine's own glibc: programs of the machine with all that they load.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use sarus_integration_tests::{Image, Packed, Tar};

/// Files by their path in the image. The dynamic loader's cache is made when it is packed.
pub(crate) struct GlibcImage {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl GlibcImage {
    /// With programs of the machine, the libraries that they need, and `ldconfig`.
    pub(crate) fn new(programs: &[&str]) -> Self {
        let mut image = Self { files: BTreeMap::new() };
        // Static, and busybox has none.
        image.file("/sbin/ldconfig", fs_err::read("/sbin/ldconfig").unwrap());
        programs.iter().for_each(|program| image.copy(Path::new(program)));
        image
    }

    /// Adds a file of the machine at the same path, and the libraries that it needs.
    pub(crate) fn copy(&mut self, path: &Path) {
        let loaded = Command::new("ldd").arg(path).output().unwrap();
        let text = String::from_utf8(loaded.stdout).unwrap();
        let words = text.split_whitespace().filter(|word| word.starts_with('/'));
        for file in words.map(Path::new).chain([path]) {
            self.file(file, fs_err::read(file).unwrap());
        }
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: impl AsRef<Path>, content: impl Into<Vec<u8>>) {
        self.files.insert(path.as_ref().to_owned(), content.into());
    }

    /// Takes away the files of a name that `is_kept` does not keep.
    pub(crate) fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.files
            .retain(|path, _| path.file_name().and_then(|n| n.to_str()).is_some_and(&is_kept));
    }

    /// The directory of a library.
    pub(crate) fn directory_of(&self, name: &str) -> &Path {
        let found = self.files.keys().find(|path| path.ends_with(name));
        found.and_then(|path| path.parent()).unwrap()
    }

    /// BusyBox's image with the files and a cache of the loader.
    pub(crate) fn pack(&self) -> Packed {
        let tree = tempfile::tempdir().unwrap();
        self.write(tree.path());
        let cache = fs_err::read(tree.path().join("etc/ld.so.cache")).unwrap();
        let mut tar = Tar::new().file("etc/ld.so.cache", cache);
        for (path, content) in &self.files {
            let name = path.strip_prefix("/").unwrap().to_str().unwrap();
            tar = tar.file(name, content).mode(0o755);
        }
        Image::busybox().layer(&tar).pack()
    }

    /// Writes the files and a cache of the loader below a directory.
    pub(crate) fn write(&self, root: &Path) {
        fs_err::create_dir_all(root.join("etc")).unwrap();
        let directories: Vec<&Path> = self
            .files
            .keys()
            .filter_map(|path| path.parent())
            .filter(|path| is_lib(path))
            .collect();
        for (path, content) in &self.files {
            let path = root.join(path.strip_prefix("/").unwrap());
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(&path, content).unwrap();
            let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs_err::set_permissions(&path, executable).unwrap();
        }
        let mut ldconfig = Command::new("/sbin/ldconfig");
        let ldconfig = ldconfig.arg("-X").arg("-r").arg(root).args(directories);
        assert!(ldconfig.output().unwrap().status.success());
    }
}

fn is_lib(directory: &Path) -> bool {
    directory
        .components()
        .any(|part| part.as_os_str().to_str().is_some_and(|p| p.starts_with("lib")))
}
