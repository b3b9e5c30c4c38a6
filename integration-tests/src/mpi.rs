//! Debian's two MPI libraries, as this machine has them: programs compiled against them, and images
//! with such a program and all that it loads.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::run;
use crate::image::{Dialect, Image, Packed, Packing};
use crate::session::Session;
use crate::tarball::Tar;

/// An MPI library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mpi {
    /// MPICH, started by PMI 2.
    Mpich,
    /// Open MPI, started by PMIx.
    OpenMpi,
}

impl Mpi {
    /// The option of `srun` for it.
    pub fn srun_option(self) -> &'static str {
        match self {
            Self::Mpich => "--mpi=pmi2",
            Self::OpenMpi => "--mpi=pmix",
        }
    }

    /// Compiles a program in C to `program`, which all may execute.
    pub fn compile(self, source: &Path, program: &Path) {
        let compiler = match self {
            Self::Mpich => "mpicc.mpich",
            Self::OpenMpi => "mpicc.openmpi",
        };
        run(Command::new(compiler).args(["-O1", "-o"]).arg(program).arg(source));
    }

    /// BusyBox with `/usr/bin/PROGRAM` and all that it loads, also what the library opens by name.
    pub fn image(self, program: &Path) -> Packed {
        let name = program.file_name().and_then(OsStr::to_str).expect("a name");
        let mut files: BTreeSet<PathBuf> = self.opened_by_name().iter().flat_map(below).collect();
        let plugins = files.iter().filter(|file| file.extension() == Some(OsStr::new("so")));
        let loaded = needed(plugins.map(PathBuf::as_path).chain([program]));
        files.extend(loaded);
        let content = fs_err::read(program).expect("a program");
        let tar = tree(&files).file(format!("usr/bin/{name}"), content).mode(0o755);
        Image::busybox().packed_layer(&tar, Packing::Zstd, Dialect::Oci).pack()
    }

    /// Directories of plug-ins and settings.
    fn opened_by_name(self) -> Vec<PathBuf> {
        let libraries = Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let names: &[&str] = match self {
            Self::Mpich => &["ucx"],
            Self::OpenMpi => &["ucx", "openmpi/lib/openmpi3", "pmix2/lib/pmix", "pmix2/share"],
        };
        let mut directories: Vec<_> = names.iter().map(|name| libraries.join(name)).collect();
        if self == Self::OpenMpi {
            directories.extend(["/usr/share/openmpi", "/etc/openmpi"].map(PathBuf::from));
        }
        directories
    }
}

/// Puts a copy of an MPI that `ci/mpi-stacks` downloads (`impi`, `mpich-5.0.2`, ..) where the users of
/// a session may read it, and returns its directory.
pub fn copy_stack(session: &Session, name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/mpi-stacks");
    let stacks = run(&mut Command::new(script));
    let (from, to) = (Path::new(stacks.trim()).join(name), session.directory().join(name));
    // A link saves time and cache; it needs both on one file system.
    let linked = Command::new("cp").args(["-al"]).args([&from, &to]).output();
    if !linked.is_ok_and(|output| output.status.success()) {
        run(Command::new("cp").args(["-a"]).args([&from, &to]));
    }
    to
}

/// All files below a directory, links to files among them.
fn below(directory: &PathBuf) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(directory).expect("it is installed");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

/// The shared libraries that programs and libraries need, and the loader.
fn needed<'a>(objects: impl Iterator<Item = &'a Path>) -> BTreeSet<PathBuf> {
    let list = run(Command::new("ldd").args(objects));
    let words = list.lines().filter_map(|line| {
        let (words, _address) = line.trim().split_once(" (0x")?;
        words.split(" => ").last()
    });
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// The files at their paths, links followed, with the directories above them.
fn tree(files: &BTreeSet<PathBuf>) -> Tar {
    let inside = |path: &Path| path.strip_prefix("/").expect("absolute").display().to_string();
    let above = files.iter().flat_map(|file| file.ancestors().skip(1));
    let directories: BTreeSet<&Path> = above.filter(|path| *path != Path::new("/")).collect();
    let tar = directories.iter().fold(Tar::new(), |tar, path| tar.dir(inside(path)));
    files.iter().fold(tar, |tar, path| {
        tar.file(inside(path), fs_err::read(path).expect("a file")).mode(0o755)
    })
}
