//! The hooks `mpi` and `glibc`: real MPI libraries, standing for a host's, in real images.

use std::path::{Path, PathBuf};
use std::process::Command;

use sarus_integration_tests::{Image, Output, Runtime, Session, Tar, Who, copy_stack, debian_with};
use serde_json::{Value, json};

use crate::{Ground, in_every_mode, in_mode};

in_every_mode!(the_hosts_mpi_runs_the_images_program, a_newer_c_library_is_needed_or_given);

in_mode!(
    as_user_with_crun,
    User,
    Crun,
    of_several_stacks_the_best_or_the_named_one_is_taken,
    what_does_not_fit_is_refused_before_the_start,
    the_file_of_sarus_1_7_does_what_it_did,
    the_hosts_dependencies_are_found_before_the_images,
    programs_that_cannot_have_it_are_told_and_start,
    every_mpi_library_of_the_image_is_replaced
);

in_mode!(
    as_root_with_runc,
    Root,
    Runc,
    what_does_not_fit_is_refused_before_the_start,
    the_file_of_sarus_1_7_does_what_it_did,
    the_hosts_dependencies_are_found_before_the_images
);

/// What the image's own MPICH says of itself.
const OWN: &str = "rank 0 of 1: MPICH Version:\t3.4.1\n";

/// A hook's file as Sarus 1.7 documents it, with our program.
fn hook(session: &Session, name: &str, variables: &[String]) -> Value {
    json!({
        "version": "1.0.0",
        "hook": {"path": program(session, name), "env": variables},
        "when": {"annotations": {format!("^com.hooks.{name}.enabled$"): "^true$"}},
        "stages": ["createContainer"],
    })
}

/// Gives the session's configuration a program of its own: with privilege all directories above a
/// hook must be root's alone.
fn program(session: &Session, name: &str) -> PathBuf {
    let (name, place) = (format!("sarus-hook-{name}"), format!("libexec/sarus-hook-{name}"));
    session.configure(&place, fs_err::read(session.programs().path(&name)).unwrap());
    let written = match session.configuration().starts_with(session.home()) {
        true => session.configuration().join(&place),
        false => session.directory().join("site/sarus").join(&place),
    };
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs_err::set_permissions(written, mode).unwrap();
    session.configuration().join(place)
}

/// Lets a session have the MPI hook with variables.
pub(crate) fn configure(session: &Session, variables: &[String]) {
    let hooks = session.configuration().join("hooks.d");
    session.configure("hooks.d/10-mpi.json", hook(session, "mpi", variables).to_string());
    session.configure("sarus.json", json!({"hooksDir": [hooks]}).to_string());
}

/// `MPI_LIBS` of libraries in a directory.
pub(crate) fn libs(directory: &Path, names: &[&str]) -> String {
    format!("MPI_LIBS={}", joined(directory, names))
}

/// Paths of files in a directory, with colons between them.
pub(crate) fn joined(directory: &Path, names: &[&str]) -> String {
    let paths = names.iter().map(|name| directory.join(name).display().to_string());
    paths.collect::<Vec<_>>().join(":")
}

fn run(ground: &Ground, options: &[&str], command: &[&str]) -> Output {
    ground.session.configured(ground.run_with(options, command)).run()
}

/// Compiles something that all may read.
fn compile(session: &Session, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (from, to) = (session.directory().join("source.c"), session.directory().join(name));
    fs_err::write(&from, source).unwrap();
    fs_err::create_dir_all(to.parent().unwrap()).unwrap();
    let built = Command::new("gcc").args(flags).arg("-o").args([&to, &from]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    to
}

/// A library with some functions that do nothing.
fn library(session: &Session, path: &str, soname: &str, functions: &[&str]) -> PathBuf {
    let source: String =
        functions.iter().map(|name| format!("int {name}(void) {{ return 0; }}\n")).collect();
    let soname = format!("-Wl,-soname,{soname}");
    compile(session, path, &source, &["-shared", "-fPIC", "-nostdlib", &soname])
}

fn the_hosts_mpi_runs_the_images_program(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    let session = &ground.session;
    assert_eq!(run(&ground, &[], &["hello"]).ok(), OWN);
    for (stack, names, want) in [
        ("impi", &["libmpi.so.12.0.0", "libmpifort.so.12.0.0"][..], "Intel(R) MPI Library 2021.19"),
        ("mpich-5.0.2", &["libmpi.so.12"], "5.0.2"),
        ("mpich-3.4.3.post1", &["libmpi.so.12"], "3.4.3"),
    ] {
        let directory = copy_stack(session, stack).join("lib");
        configure(session, &[libs(&directory, names)]);
        for command in [&["hello"][..], &["sh", "-c", "hello && true"]] {
            let output = run(&ground, &["--mpi"], command);
            let said = output.ok();
            assert!(said.starts_with("rank 0 of 1: ") && said.contains(want), "{output}");
            assert_eq!(output.stderr, "", "{stack}");
        }
    }
    let alone = run(&ground, &["--mpi", "--pid", "private"], &["hello"]);
    assert!(alone.ok().contains("3.4.3"), "{alone}");
    let sealed = run(&ground, &["--mpi", "--read-only"], &["sh", "-c", "hello; : > /usr/x"]);
    assert!(sealed.stdout.contains("3.4.3") && sealed.stderr.contains("Read-only"), "{sealed}");
    assert_eq!(run(&ground, &[], &["hello"]).ok(), OWN, "without --mpi");
}

fn a_newer_c_library_is_needed_or_given(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    let session = &ground.session;
    let debian = Path::new("/usr/lib/x86_64-linux-gnu");
    configure(session, &[libs(debian, &["libmpich.so.12"])]);
    let refused = run(&ground, &["--mpi"], &["hello"]);
    assert!(refused.stderr.contains("needs `GLIBC_2.34"), "{refused}");
    for word in ["cannot give the container the host's MPI", "ends at `GLIBC_2.31`", "glibc hook"] {
        assert!(refused.stderr.contains(word), "{refused}");
    }
    assert_eq!((refused.code(), refused.stdout.as_str()), (Some(125), ""), "{refused}");
    let parts = joined(debian, &["libc.so.6", "libm.so.6", "libpthread.so.0"]);
    let loader = "/lib64/ld-linux-x86-64.so.2";
    for variables in [
        vec![],
        vec![
            format!("GLIBC_LIBS={parts}:{loader}"),
            "LDCONFIG_PATH=/sbin/ldconfig".to_owned(),
            "READELF_PATH=/usr/bin/readelf".to_owned(),
        ],
    ] {
        let hook = hook(session, "glibc", &variables);
        session.configure("hooks.d/05-glibc.json", hook.to_string());
        let output = run(&ground, &["--mpi"], &["hello"]);
        assert!(output.ok().contains("4.0.2"), "{output}");
        let version =
            run(&ground, &["--glibc"], &["sh", "-c", "/lib/x86_64-linux-gnu/libc.so.6; hello"]);
        assert!(version.ok().contains("release version 2.36"), "{version}");
        assert!(version.ok().contains(OWN), "{version}");
    }
}

fn of_several_stacks_the_best_or_the_named_one_is_taken(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    let session = &ground.session;
    let [impi, old, open] =
        ["impi", "mpich-3.4.3.post1", "openmpi"].map(|name| copy_stack(session, name).join("lib"));
    let stacks = json!({"version": 1, "stacks": [
        {"type": "open", "libs": [open.join("libmpi.so.40")], "preference": 20},
        {"type": "intel", "libs": [impi.join("libmpi.so.12")]},
        {"type": "debian", "libs": ["/usr/lib/x86_64-linux-gnu/libmpich.so.12"], "preference": 10},
        {"type": "old", "libs": [old.join("libmpi.so.12")], "preference": 5},
    ]});
    let file = session.directory().join("stacks.json");
    fs_err::write(&file, stacks.to_string()).unwrap();
    configure(session, &[format!("MPI_STACKS={}", file.display())]);
    for (options, want) in
        [(&["--mpi"][..], "3.4.3"), (&["--mpi-type", "intel"], "Intel(R) MPI Library 2021.19")]
    {
        let output = run(&ground, options, &["hello"]);
        assert!(output.ok().contains(want), "{output}");
    }
    let hooks = session.configuration().join("hooks.d");
    let config = json!({"hooksDir": [hooks], "defaultMPIType": "intel"});
    session.configure("sarus.json", config.to_string());
    let output = run(&ground, &["--mpi"], &["hello"]);
    assert!(output.ok().contains("Intel(R) MPI Library 2021.19"), "{output}");
    for (name, words) in [
        ("open", &["MPICH (`libmpi.so.12`, `libmpich.so.12`)", "Open MPI (`libmpi.so.40`)"][..]),
        ("debian", &["GLIBC_2.34"]),
        ("none", &["no MPI of type `none`", "open, intel, debian, old"]),
    ] {
        run(&ground, &["--mpi-type", name], &["hello"]).explains(125, words);
    }
}

fn what_does_not_fit_is_refused_before_the_start(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    let session = &ground.session;
    let path =
        library(session, "lacking/libmpi.so.12", "libmpi.so.12", &["MPI_Init", "MPI_Finalize"]);
    configure(session, &[libs(path.parent().unwrap(), &["libmpi.so.12"])]);
    let lacking = path.display().to_string();
    let words = ["`/usr/local/bin/hello` needs `MPI_Comm_rank`", lacking.as_str()];
    run(&ground, &["--mpi"], &["hello"]).explains(125, &words);
    // Nobody knows what a script will call.
    let output = run(&ground, &["--mpi"], &["sh", "-c", "echo started"]);
    assert_eq!(output.ok(), "started\n");

    let needy = compile(
        session,
        "needy/libmpi.so.12",
        "",
        &[
            "-shared",
            "-nostdlib",
            "-Wl,-soname,libmpi.so.12",
            "-Wl,--no-as-needed",
            lacking.as_str(),
        ],
    );
    fs_err::remove_file(&path).unwrap();
    configure(session, &[libs(needy.parent().unwrap(), &["libmpi.so.12"])]);
    run(&ground, &["--mpi"], &["hello"])
        .explains(125, &["cannot give the container the host's MPI"]);
    configure(session, &[libs(path.parent().unwrap(), &["libmpi.so.12"])]);
    run(&ground, &["--mpi"], &["hello"]).explains(125, &[lacking.as_str(), "hint"]);

    let open_mpi = Ground::with(who, runtime, &debian_with("openmpi"));
    let impi = copy_stack(&open_mpi.session, "impi").join("lib");
    configure(&open_mpi.session, &[libs(&impi, &["libmpi.so.12"])]);
    let words = ["Open MPI (`libmpi.so.40`)", "MPICH (`libmpi.so.12`, `libmpich.so.12`)", "hint"];
    run(&open_mpi, &["--mpi"], &["hello"]).explains(125, &words);
}

fn the_file_of_sarus_1_7_does_what_it_did(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    let session = &ground.session;
    let directory = copy_stack(session, "mpich-5.0.2").join("lib");
    let shared = session.directory().join("settings");
    fs_err::write(&shared, "of the host\n").unwrap();
    let mut variables = vec![
        "LDCONFIG_PATH=/sbin/ldconfig".to_owned(),
        libs(&directory, &["libmpi.so.12"]),
        format!("MPI_DEPENDENCY_LIBS={}", joined(&directory, &["mpich/libfabric.so.1"])),
        format!("BIND_MOUNTS={}:/dev/fuse", shared.display()),
        "MPI_COMPATIBILITY_TYPE=full".to_owned(),
    ];
    configure(session, &variables);
    let script = format!("hello; cat {}; ls /usr/lib/libfabric.so.1 /dev/fuse", shared.display());
    let output = run(&ground, &["--mpi"], &["sh", "-c", &script]);
    assert!(output.ok().contains("5.0.2"), "{output}");
    assert!(output.ok().ends_with("of the host\n/dev/fuse\n/usr/lib/libfabric.so.1\n"), "{output}");
    variables[4] = "MPI_COMPATIBILITY_TYPE=strict".to_owned();
    configure(session, &variables);
    let words = ["libmpich.so.12.1.10", "`strict`"];
    run(&ground, &["--mpi"], &["hello"]).explains(125, &words);
}

fn the_hosts_dependencies_are_found_before_the_images(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    let session = &ground.session;
    let directory = copy_stack(session, "mpich-5.0.2").join("lib");
    configure(session, &[libs(&directory, &["libmpi.so.12"])]);
    // The image's own, in which nothing is that the host's MPI needs.
    let mut volumes = Vec::new();
    for (place, name) in
        [("/opt/env", "libucp.so.0"), ("/usr/lib/x86_64-linux-gnu/mpich", "libfabric.so.1")]
    {
        let path = format!("image{place}/{name}");
        let own = library(session, &path, name, &["nothing"]);
        volumes.push(format!("type=bind,src={},dst={place}/{name}", own.display()));
    }
    let mut options = vec!["--mpi", "-e", "LD_LIBRARY_PATH=/opt/env"];
    options.extend(volumes.iter().flat_map(|volume| ["--mount", volume]));
    let output = run(&ground, &options, &["hello"]);
    assert!(output.ok().contains("5.0.2"), "{output}");
}

fn programs_that_cannot_have_it_are_told_and_start(who: Who, runtime: Runtime) {
    let stack = |session: &Session| {
        let impi = copy_stack(session, "impi").join("lib");
        configure(session, &[libs(&impi, &["libmpi.so.12"])]);
    };
    let cache = fs_err::read("/etc/ld.so.cache").unwrap();
    let musl = Tar::new().dir("lib").file("lib/ld-musl-x86_64.so.1", "");
    let hostile = [&cache[..40], &[0xff; 4096]].concat();
    let [other, hostile] = [cache, hostile].map(|cache| Tar::new().file("etc/ld.so.cache", cache));
    for (image, want) in [
        (Image::busybox(), "no `/etc/ld.so.cache`"),
        (Image::busybox().layer(&musl), "the image's C library is musl"),
        (Image::busybox().layer(&other), "has no MPI library"),
        (Image::busybox().layer(&hostile), "no `/etc/ld.so.cache`"),
    ] {
        let ground = Ground::with(who, runtime, &image.pack());
        stack(&ground.session);
        let output = run(&ground, &["--mpi"], &["echo", "started"]);
        assert_eq!(output.ok(), "started\n");
        assert!(
            output.stderr.starts_with("warn: hook mpi: the host's MPI is not injected: "),
            "{output}"
        );
        assert!(output.stderr.contains(want), "{output}");
    }
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    stack(&ground.session);
    let source = "#include <stdio.h>\nint main(void) { puts(\"alone\"); return 0; }";
    let program = compile(&ground.session, "solver", source, &["-static"]);
    let volume = format!("type=bind,src={},dst=/usr/local/bin/solver", program.display());
    let output = run(&ground, &["--mpi", "--mount", &volume], &["solver"]);
    assert_eq!(output.ok(), "alone\n");
    assert!(output.stderr.contains("`/usr/local/bin/solver` is linked statically"), "{output}");
}

/// Says which MPI it runs on. It starts by itself: this machine's C library would have it start in a way
/// that an older one has not.
const SOLVER: &str = r#"
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    int MPI_Get_library_version(char *, int *);
    __attribute__((force_align_arg_pointer)) void _start(void) {
        static char text[8192];
        int size;
        MPI_Get_library_version(text, &size);
        text[strcspn(text, "\n")] = 0;
        puts(text);
        exit(0);
    }"#;

fn every_mpi_library_of_the_image_is_replaced(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    let session = &ground.session;
    let [impi, wheel] = ["impi", "mpich-3.4.3.post1"].map(|name| copy_stack(session, name));
    configure(session, &[libs(&impi.join("lib"), &["libmpi.so.12"])]);
    // As pip installs it in a virtual environment, and a program that finds it by its RUNPATH.
    let volume = format!("type=bind,src={},dst=/opt/venv", wheel.display());
    let library = wheel.join("lib/libmpi.so.12");
    let flags = ["-nostartfiles", "-Wl,--no-as-needed", library.to_str().unwrap()];
    let flags = [&flags[..], &["-Wl,-rpath,$ORIGIN/../lib", "-w"]].concat();
    compile(session, "mpich-3.4.3.post1/bin/solver", SOLVER, &flags);
    let by_path = run(&ground, &["--mount", &volume], &["/opt/venv/bin/solver"]);
    assert!(by_path.ok().contains("3.4.3"), "{by_path}");
    for options in [
        &["--mpi", "--mount", &volume][..],
        &["--mpi", "--mount", &volume, "-e", "LD_LIBRARY_PATH=/opt/venv/lib"],
        &["--mpi", "--mount", &volume, "-e", "PATH=/opt/venv/bin:/usr/bin:/bin"],
    ] {
        for command in [&["/opt/venv/bin/solver"][..], &["sh", "-c", "exec /opt/venv/bin/solver"]] {
            let output = run(&ground, options, command);
            assert!(output.ok().contains("Intel(R) MPI Library 2021.19"), "{output}");
        }
    }
}
