use super::*;
use sarus_hook::ld_cache;
use std::os::fd::AsFd;
use std::process::Command as Process;

/// A root with a cache that names an MPI library, and files that were compiled.
struct Ground {
    directory: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let ground = Self { directory: tempfile::tempdir().unwrap() };
        let functions = "int MPI_Init(void){return 0;} int MPI_Session_init(void){return 0;}";
        ground.compile(
            "usr/lib/libmpi.so.12.1",
            functions,
            &["-shared", "-Wl,-soname,libmpi.so.12"],
        );
        let base = ground.directory.path();
        std::os::unix::fs::symlink("libmpi.so.12.1", base.join("usr/lib/libmpi.so.12")).unwrap();
        // This machine's own is as good a beginning as any.
        let own = fs_err::read("/etc/ld.so.cache").unwrap();
        let entry = ("libmpi.so.12".to_owned(), PathBuf::from("/usr/lib/libmpi.so.12"));
        ground.write("etc/ld.so.cache", &ld_cache::add(&own, &[entry]).unwrap());
        ground
    }

    fn write(&self, path: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, content).unwrap();
        path
    }

    fn compile(&self, path: &str, source: &str, flags: &[&str]) {
        let source = self.write("source.c", source.as_bytes());
        let output = self.write(path, b"");
        let command = Process::new("gcc")
            .args(["-w", "-fPIC", "-nostdlib", "-o"])
            .args([&output, &source])
            .args(flags)
            .output()
            .unwrap();
        assert!(command.status.success(), "{}", String::from_utf8_lossy(&command.stderr));
    }

    fn library(&self) -> String {
        self.directory.path().join("usr/lib/libmpi.so.12").display().to_string()
    }

    fn look(&self, command: &[&str]) -> Image {
        let format = Elf::read(std::fs::File::open(self.library()).unwrap()).unwrap().format;
        let question = Question {
            format,
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            directory: PathBuf::from("/work"),
            variables: BTreeMap::from([("PATH".to_owned(), "/opt/venv/bin:/usr/bin".to_owned())]),
        };
        let opened = std::fs::File::open(self.directory.path()).unwrap();
        look(Root(opened.as_fd()), &question)
    }
}

fn kind() -> Kind {
    Kind::of("libmpi.so.12", || false).unwrap()
}

#[test]
fn a_library_is_found_once_by_the_cache_a_link_a_virtual_environment_or_its_name() {
    let ground = Ground::new();
    let functions = "int MPI_Init(void){return 0;}";
    ground.compile(
        "opt/venv/lib/libmpi.so.12",
        functions,
        &["-shared", "-Wl,-soname,libmpi.so.12"],
    );
    ground.compile("opt/mpich-4.2/lib/libmpi.so.12", functions, &["-shared"]);
    ground.write("opt/venv/lib/libmpi.so", b"no library");
    let image = ground.look(&["none"]);
    assert!(image.has_cache && !image.is_musl);
    let paths: Vec<_> = image.libraries.iter().map(|found| found.path.to_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            "/opt/mpich-4.2/lib/libmpi.so.12",
            "/opt/venv/lib/libmpi.so.12",
            "/usr/lib/libmpi.so.12.1"
        ]
    );
    assert!(image.libraries.iter().all(|library| library.kind == kind()));
    assert_eq!((image.command, image.programs), (Command::Other, vec![]));
}

#[test]
fn what_the_command_needs_of_mpi_is_known() {
    let ground = Ground::new();
    let source = "int MPI_Init(void); void _start(void){MPI_Init();}";
    let library = ground.library();
    ground.compile("work/solver", source, &[&library]);
    let image = ground.look(&["./solver"]);
    assert_eq!(image.command, Command::Dynamic);
    let [program] = &image.programs[..] else { panic!("{:?}", image.programs) };
    assert!(program.is_command && program.uses.contains(&kind()));
    assert_eq!(program.needs[0].symbols, [(kind(), vec!["MPI_Init".to_owned()])]);
    // As an argument it may be called or not.
    ground.write("usr/bin/sh", b"#!/usr/bin/dash\n");
    let image = ground.look(&["sh", "-c", "cd /; /work/solver --fast"]);
    let [program] = &image.programs[..] else { panic!("{:?}", image.programs) };
    assert!(!program.is_command && program.path == Path::new("/work/solver"));
}

#[test]
fn the_modules_of_mpi4py_are_looked_at_for_python() {
    let ground = Ground::new();
    let source = "int MPI_Session_init(void); int x(void){return MPI_Session_init();}";
    let module = "opt/venv/lib/python3.11/site-packages/mpi4py/MPI.cpython-311.so";
    ground.compile(module, source, &["-shared", &ground.library()]);
    ground.write("opt/venv/bin/python3", b"");
    ground.write("work/simulate", b"#!/usr/bin/env python3\nimport mpi4py\n");
    for command in [&["python3", "-c", "import mpi4py"][..], &["./simulate"]] {
        let image = ground.look(command);
        let [program] = &image.programs[..] else { panic!("{command:?}: {:?}", image.programs) };
        assert!(!program.is_command, "{command:?}");
        assert_eq!(program.needs[0].symbols[0].1, ["MPI_Session_init"], "{command:?}");
    }
}

#[test]
fn a_program_without_the_loader_of_glibc_is_told_apart() {
    let ground = Ground::new();
    let source = "void _start(void){}";
    ground.compile("usr/bin/alone", source, &["-static"]);
    let musl = "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1";
    ground.compile("usr/bin/other", source, &[&ground.library(), "-Wl,--no-as-needed", musl]);
    let kind = |word| ground.look(&[word]).command;
    assert_eq!(kind("alone"), Command::Static(PathBuf::from("/usr/bin/alone")));
    assert_eq!(kind("other"), Command::OtherLoader("/lib/ld-musl-x86_64.so.1".to_owned()));
}
