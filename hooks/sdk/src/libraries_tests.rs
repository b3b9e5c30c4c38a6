use super::*;
use std::collections::BTreeMap;
use std::process::Command;

/// Compiles a file in a directory; `flags` say what and how.
fn compile(directory: &Path, source: &str, flags: &[&str]) {
    fs_err::write(directory.join("source.c"), source).unwrap();
    let done = Command::new("gcc")
        .current_dir(directory)
        .args(["-w", "source.c"])
        .args(flags)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// What the machine's own loader says of a program: libraries by name.
fn truth(program: &Path, library_path: &str) -> BTreeMap<String, PathBuf> {
    let listed = Command::new(program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .env("LD_LIBRARY_PATH", library_path)
        .output()
        .unwrap();
    let text = String::from_utf8(listed.stdout).unwrap();
    let of_line = |line: &str| {
        let (name, rest) = line.trim().split_once(" => ")?;
        Some((name.to_owned(), PathBuf::from(rest.split(" (").next()?)))
    };
    text.lines().filter_map(of_line).collect()
}

fn ours(program: &Path, library_path: &str) -> BTreeMap<String, PathBuf> {
    let slash = std::fs::File::open("/").unwrap();
    let root = Root(slash.as_fd());
    let format = Elf::read(std::fs::File::open(program).unwrap()).unwrap().format;
    let loader = Loader::new(root, format, library_path);
    let closure = loader.closure(&[program.to_owned()]);
    assert_eq!(closure.missing, []);
    let libraries = closure.objects.into_iter().skip(1);
    libraries
        .map(|object| (object.name, object.found.path))
        // The loader is in memory already when it is asked for.
        .filter(|(name, _)| !name.starts_with("ld-linux"))
        .collect()
}

#[test]
fn libraries_are_found_where_the_machines_loader_finds_them() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    for below in ["near", "near/deep", "old", "env"] {
        std::fs::create_dir(base.join(below)).unwrap();
    }
    let shared = |name: &str, source: &str, flags: &[&str]| {
        let output = format!("-o{name}");
        let soname = format!("-Wl,-soname,{}", name.rsplit('/').next().unwrap());
        compile(&base, source, &[&["-shared", "-fPIC", &output, &soname], flags].concat());
    };
    shared("near/deep/libc1.so", "int c(void){return 1;}", &[]);
    shared("env/libc1.so", "int c(void){return 1;}", &[]);
    shared("old/libd1.so", "int d(void){return 1;}", &[]);
    shared(
        "near/libb1.so",
        "int c(void); int b(void){return c();}",
        &["near/deep/libc1.so", "-Wl,-rpath,$ORIGIN/./deep"],
    );
    // Without a path of its own, but the program's RPATH counts for it too.
    shared("old/libe1.so", "int d(void); int e(void){return d();}", &["old/libd1.so"]);
    compile(
        &base,
        "int b(void); int main(void){return b();}",
        &["-oprogram", "near/libb1.so", "-Wl,-rpath,${ORIGIN}/near", "-Wl,-rpath-link,near/deep"],
    );
    compile(
        &base,
        "int e(void); int main(void){return e();}",
        &[
            "-oprevious",
            "old/libe1.so",
            "-Wl,-rpath,$ORIGIN/old",
            "-Wl,--disable-new-dtags",
            "-Wl,-rpath-link,old",
        ],
    );
    std::os::unix::fs::symlink(base.join("program"), base.join("env/link")).unwrap();
    let environment = base.join("env");
    let environment = environment.to_str().unwrap();
    for (program, library_path) in
        [("program", ""), ("env/link", ""), ("program", environment), ("previous", "")]
    {
        let program = base.join(program);
        let want = truth(&program, library_path);
        assert!(want.contains_key("libc.so.6"), "{want:?}");
        let got: BTreeMap<_, _> = ours(&program, library_path);
        assert_eq!(got, want, "{}", program.display());
    }
}

#[test]
fn what_is_not_there_is_missing_and_a_cycle_ends() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path();
    let shared = |name: &str, other: &[&str]| {
        let output = format!("-o{name}");
        let own = ["-shared", "-fPIC", &output, "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN"];
        compile(base, "int x(void){return 1;}", &[&own, other].concat());
    };
    shared("libx9.so", &[]);
    shared("liby9.so", &["libx9.so"]);
    shared("libx9.so", &["liby9.so"]);
    compile(
        base,
        "int x(void); int main(void){return x();}",
        &["-oprogram", "libx9.so", "liby9.so"],
    );
    let opened = std::fs::File::open(base).unwrap();
    let root = Root(opened.as_fd());
    let format = Elf::read(std::fs::File::open(base.join("program")).unwrap()).unwrap().format;
    let loader = Loader::new(root, format, "");
    let closure = loader.closure(&[PathBuf::from("/program")]);
    let missing: Vec<&str> = closure.missing.iter().map(|missing| missing.name.as_str()).collect();
    assert_eq!(missing, ["libx9.so", "libc.so.6"]);
    assert_eq!(loader.closure(&[PathBuf::from("/libx9.so")]).objects.len(), 2);
    assert!(!loader.has_cache());
}

#[test]
fn the_configuration_of_the_cache_is_followed_with_its_inclusions() {
    let directory = tempfile::tempdir().unwrap();
    let etc = directory.path().join("etc");
    fs_err::create_dir_all(etc.join("ld.so.conf.d")).unwrap();
    let write = |name: &str, text: &str| fs_err::write(etc.join(name), text).unwrap();
    write("ld.so.conf", "/first # comment\ninclude ld.so.conf.d/*.conf\n\n/last\n");
    write("ld.so.conf.d/b.conf", "/b\ninclude /etc/ld.so.conf\n");
    write("ld.so.conf.d/a.conf", "/a\nnonsense\n");
    write("ld.so.conf.d/c.not", "/c\n");
    let opened = std::fs::File::open(directory.path()).unwrap();
    let found = configured_directories(Root(opened.as_fd()));
    let mut names: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).take(4).collect();
    names.dedup();
    assert_eq!(names, ["/first", "/a", "/b", "/first"]);
    assert!(!found.contains(&PathBuf::from("/c")));
}

#[test]
fn parts_of_the_c_library_are_known() {
    for (name, want) in [
        ("libc.so.6", true),
        ("ld-linux-x86-64.so.2", true),
        ("ld64.so.2", true),
        ("libpthread.so.0", true),
        ("libnss_dns.so.2", true),
        ("libnsl.so.1", true),
        ("libnsl.so.2", false),
        ("libcrypt.so.1", false),
        ("libmpi.so.12", false),
        ("libstdc++.so.6", false),
    ] {
        assert_eq!(is_of_libc(name), want, "{name}");
    }
}
