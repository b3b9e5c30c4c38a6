//! From words to the launch request.

use std::ffi::OsString;
use std::path::PathBuf;

use sarus_cli::args::Verbosity;
use sarus_cli::plan::{self, Caller, ImageToRun};
use sarus_cli::usage::UsageError;
use sarus_cli::variables::EnvFile;
use sarus_launch::{MountSource, RawString, Request};
use sarus_oci::Execution;

use super::arguments::run;

const QUIET: Verbosity = Verbosity { verbose: false, debug: false };

fn caller() -> Caller {
    let env = [("HOME", "/home/u"), ("LANG", "C")];
    Caller {
        account: None,
        env: env.map(|(name, value)| (OsString::from(name), OsString::from(value))).to_vec(),
        cwd: PathBuf::from("/home/u"),
        program: Some(PathBuf::from("/usr/bin/sarus")),
        default_mpi_type: Some("mpich".to_owned()),
    }
}

fn words(list: &[&str]) -> Option<Vec<String>> {
    Some(list.iter().map(|word| (*word).to_owned()).collect())
}

fn image(entrypoint: Option<Vec<String>>, cmd: Option<Vec<String>>) -> ImageToRun {
    ImageToRun {
        squashfs: PathBuf::from("/store/image.squashfs"),
        offset: 0,
        name: "docker.io/library/debian:12".to_owned(),
        digest: Some("sha256:00".to_owned()),
        execution: Execution {
            entrypoint,
            cmd,
            env: vec!["PATH=/bin".to_owned()],
            working_dir: Some("/work".to_owned()),
            user: Some("1000".to_owned()),
            ..Execution::default()
        },
    }
}

fn plan(given: &[&str], image: &ImageToRun) -> Result<Request, UsageError> {
    plan::request(&run(given), QUIET, &caller(), image, &[])
}

fn command(given: &[&str], image: &ImageToRun) -> Vec<String> {
    let request = plan(given, image).unwrap_or_else(|error| panic!("{given:?}: {error}"));
    request.command.args.iter().map(RawString::to_string_lossy).collect()
}

#[test]
fn entrypoint_arguments_and_default_command_combine_as_dockers() {
    let both = image(words(&["/entry", "-x"]), words(&["cmd", "arg"]));
    let only_cmd = image(None, words(&["cmd", "arg"]));
    let only_entry = image(words(&["/entry"]), None);
    let emptied = image(words(&[""]), words(&["cmd"]));
    for (given, image, want) in [
        (&["i"][..], &both, &["/entry", "-x", "cmd", "arg"][..]),
        (&["i", "ls"], &both, &["/entry", "-x", "ls"]),
        (&["--entrypoint", "sh", "i"], &both, &["sh"]),
        (&["--entrypoint", "sh", "i", "-c", "ls"], &both, &["sh", "-c", "ls"]),
        (&["--entrypoint", "", "i", "ls"], &both, &["ls"]),
        (&["i"], &only_cmd, &["cmd", "arg"]),
        (&["i", "ls", "-l"], &only_cmd, &["ls", "-l"]),
        (&["i"], &only_entry, &["/entry"]),
        (&["i", "-h"], &only_entry, &["/entry", "-h"]),
        (&["i"], &emptied, &["cmd"]),
    ] {
        assert_eq!(command(given, image), want, "{given:?}");
    }
}

#[test]
fn without_anything_to_run_the_image_is_named() {
    let both = image(words(&["/entry"]), words(&["cmd"]));
    for (given, image) in [
        (&["i"][..], &image(None, None)),
        (&["i"], &image(words(&[]), words(&[]))),
        (&["--entrypoint", "", "i"], &both),
    ] {
        let error = plan(given, image).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`docker.io/library/debian:12` has no default command, and none is given"
        );
        assert!(error.hint().unwrap().starts_with("name one: `sarus run "), "{given:?}");
    }
}

#[test]
fn variables_of_files_come_before_those_of_options_each_in_the_order_given() {
    let file = |content: &str| EnvFile { path: "f".into(), content: content.into() };
    let args = run(&["-e", "A=option", "-e", "HOME", "-e", "NONE", "i", "ls"]);
    let files = [file("A=first\nB=first\n"), file("B=second\nLANG\n")];
    let request = plan::request(&args, QUIET, &caller(), &image(None, None), &files).unwrap();
    let got: Vec<_> = request.env.iter().map(RawString::to_string_lossy).collect();
    let want = ["A=first", "B=first", "B=second", "LANG=C", "A=option", "HOME=/home/u"];
    assert_eq!(got, want);
    let host: Vec<_> = request.host_env.iter().map(RawString::to_string_lossy).collect();
    assert_eq!(host, ["HOME=/home/u", "LANG=C"]);
    assert_eq!(request.image.env, ["PATH=/bin"]);
    let error =
        plan::request(&args, QUIET, &caller(), &image(None, None), &[file("=1")]).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[test]
fn the_working_directory_is_the_one_given_and_absolute() {
    let request = plan(&["-w", "/w", "i", "ls"], &image(None, None)).unwrap();
    assert_eq!(request.command.workdir, Some(RawString::from("/w")));
    assert_eq!(request.image.workdir.as_deref(), Some("/work"));
    let mut plain = image(None, None);
    plain.execution.working_dir = Some(String::new());
    let request = plan(&["i", "ls"], &plain).unwrap();
    assert_eq!((request.command.workdir, request.image.workdir), (None, None));
    let error = plan(&["-w", "w", "i", "ls"], &image(None, None)).unwrap_err();
    assert_eq!(error.to_string(), "the working directory `w` is not an absolute path");
}

#[test]
fn an_image_by_path_has_neither_digest_nor_settings() {
    let file = ImageToRun {
        squashfs: PathBuf::from("/data/a.sqsh"),
        name: "/data/a.sqsh".to_owned(),
        ..ImageToRun::default()
    };
    let request = plan(&["/data/a.sqsh", "ls"], &file).unwrap();
    assert_eq!(
        (request.image.digest, request.image.env, request.image.workdir),
        (None, vec![], None)
    );
    assert_eq!(request.image.squashfs, RawString::from("/data/a.sqsh"));
}

#[test]
fn mounts_come_with_tmpfs_first_and_relative_sources_from_the_working_directory() {
    let given = [
        "-v",
        "./a:/a",
        "--mount",
        "type=bind,src=b,dst=/b",
        "--tmpfs",
        "/t",
        "--device",
        "/dev/fuse",
        "i",
        "ls",
    ];
    let request = plan(&given, &image(None, None)).unwrap();
    let mounts: Vec<_> = request
        .mounts
        .iter()
        .map(|mount| match &mount.source {
            MountSource::Bind { path } => {
                format!("{} on {}", path.to_string_lossy(), mount.destination.to_string_lossy())
            }
            MountSource::Tmpfs { .. } => mount.destination.to_string_lossy(),
        })
        .collect();
    assert_eq!(mounts, ["/t", "/home/u/a on /a", "/home/u/b on /b"]);
    assert_eq!(request.devices.len(), 1);
    for bad in [["-v", "x"], ["--tmpfs", "t"], ["--mount", "x"], ["--device", "x"], ["-e", "=1"]] {
        assert!(plan(&[bad[0], bad[1], "i", "ls"], &image(None, None)).is_err(), "{bad:?}");
    }
}

#[test]
fn no_mount_hides_another() {
    let plan = |words: &[&str]| plan(&[words, &["i", "ls"]].concat(), &image(None, None));
    let given =
        ["-v", "/1:/a/b/c", "-v", "/2:/a//b/", "-v", "/3:/x", "--tmpfs", "/x/y", "-v", "/4:/"];
    let mounts = plan(&given).unwrap().mounts;
    let places: Vec<_> = mounts.iter().map(|mount| mount.destination.to_string_lossy()).collect();
    assert_eq!(places, ["/", "/x", "/x/y", "/a//b/", "/a/b/c"]);
    let mount = "type=bind,source=/1,destination=/a/";
    assert_eq!(plan(&["-v", "/1:/a", "-v", "/1/:/a", "--mount", mount]).unwrap().mounts.len(), 1);
    for other in [["-v", "/2:/a"], ["-v", "/1:/a/"], ["--tmpfs", "/a"]] {
        let error = plan(&["-v", "/1:/a:ro", other[0], other[1]]).unwrap_err();
        assert!(error.to_string().contains("have the destination `/a"), "{error}");
    }
}

#[test]
fn the_rest_of_a_request_is_what_the_options_say() {
    let given = [
        "--name",
        "job-1.0",
        "--read-only",
        "--init",
        "-t",
        "--mpi",
        "--pid=private",
        "--runtime",
        "./crun",
        "--annotation",
        "a=b",
        "i",
        "ls",
    ];
    let request = plan(&given, &image(None, None)).unwrap();
    assert_eq!(request.name.as_deref(), Some("job-1.0"));
    assert!(request.read_only && request.init && request.tty && request.namespaces.pid);
    assert_eq!(request.runtime.as_deref(), Some("/home/u/./crun"));
    assert_eq!(request.annotations["com.hooks.mpi.type"], "mpich");
    assert_eq!(request.annotations["a"], "b");
    assert_eq!(request.engine, Some(RawString::from("/usr/bin/sarus")));
    assert_eq!(request.verbosity, 0);
    let request = plan(&["--runtime", "crun", "i", "ls"], &image(None, None)).unwrap();
    assert_eq!(request.runtime.as_deref(), Some("crun"));
    assert!(!(request.read_only || request.init || request.tty || request.namespaces.pid));
    let json = serde_json::to_vec(&request).unwrap();
    assert_eq!(Request::parse(&json).unwrap(), request, "the shim reads what is planned");
}

#[test]
fn a_request_that_the_shim_would_refuse_is_not_made() {
    for name in ["../x", "-x", "", "a b"] {
        let option = format!("--name={name}");
        let error = plan(&[&option, "i", "ls"], &image(None, None)).unwrap_err();
        assert!(error.to_string().contains("cannot be a container's name"), "{error}");
    }
    let error = plan(&["--ssh", "--pid=host", "i", "ls"], &image(None, None)).unwrap_err();
    assert!(matches!(error, UsageError::Conflict { .. }), "{error}");
    let error = plan(&["--annotation=x", "i", "ls"], &image(None, None)).unwrap_err();
    assert!(error.to_string().contains("--annotation"), "{error}");
}

#[test]
fn debug_says_more_than_verbose() {
    for (verbose, debug, want) in
        [(false, false, 0), (true, false, 1), (false, true, 2), (true, true, 2)]
    {
        assert_eq!(plan::verbosity_level(Verbosity { verbose, debug }), want);
    }
}

#[test]
fn the_tasks_of_a_step_get_names_of_their_own() {
    for (env, want) in [
        (&[][..], "solver"),
        (&[("SLURM_PROCID", "17"), ("SLURM_STEP_NUM_TASKS", "128")][..], "solver.17"),
        // A batch script, and a step of one.
        (&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")], "solver"),
        (&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")], "solver"),
        (&[("PMI_RANK", "2"), ("PMI_SIZE", "3")], "solver.2"),
        (&[("OMPI_COMM_WORLD_RANK", "5"), ("OMPI_COMM_WORLD_SIZE", "6")], "solver.5"),
        (&[("SLURM_PROCID", "x"), ("SLURM_STEP_NUM_TASKS", "8")], "solver"),
    ] {
        let mut caller = caller();
        let more = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        caller.env.extend(more);
        let args = run(&["--name", "solver", "i", "true"]);
        let request = plan::request(&args, QUIET, &caller, &image(None, None), &[]).unwrap();
        assert_eq!(request.name.as_deref(), Some(want), "{env:?}");
    }
}

#[test]
fn the_writable_directory_becomes_absolute() {
    let image = image(None, None);
    let request = plan(&["--writable-dir", "layers", "i", "true"], &image).unwrap();
    let want = Some(RawString::from("/home/u/layers"));
    assert_eq!(request.writable_dir, want);
}
