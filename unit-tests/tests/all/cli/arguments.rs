//! Words: the table of options, mounts, devices, variables, annotations.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use sarus_cli::annotations;
use sarus_cli::args::{Arguments, Command, Format, HookArgs, Pid, Pull, RunArgs};
use sarus_cli::mounts::{is_cdi_device, parse_device, parse_mount, parse_tmpfs, parse_volume};
use sarus_cli::usage::UsageError;
use sarus_cli::variables::{self, EnvFile};
use sarus_launch::{Device, DeviceAccess, Mount, MountSource, RawString};

pub(super) fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("sarus").chain(words.iter().copied()))
}

pub(super) fn run(words: &[&str]) -> RunArgs {
    let all: Vec<&str> = std::iter::once("run").chain(words.iter().copied()).collect();
    match parse(&all).unwrap_or_else(|error| panic!("{words:?}: {error}")).command {
        Command::Run(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn os(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn raw(words: &[&str]) -> Vec<RawString> {
    words.iter().map(|word| RawString::from(*word)).collect()
}

#[test]
fn the_table_of_options_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn options_of_run_end_at_the_image() {
    for (given, want) in [
        (&["debian"][..], &["debian"][..]),
        (&["debian", "ls", "-l"], &["debian", "ls", "-l"]),
        (&["debian", "--tty", "-e", "A=1"], &["debian", "--tty", "-e", "A=1"]),
        (&["-t", "debian", "--verbose"], &["debian", "--verbose"]),
        (&["debian", "--help"], &["debian", "--help"]),
        (&["--", "debian", "ls"], &["debian", "ls"]),
        (&["debian", "--", "ls"], &["debian", "--", "ls"]),
        (&["debian", "sh", "-c", "a -- b", "--"], &["debian", "sh", "-c", "a -- b", "--"]),
        (&["debian", ""], &["debian", ""]),
    ] {
        let args = run(given);
        assert_eq!(args.words, os(want), "{given:?}");
        assert!(args.environment.env.is_empty(), "{given:?}");
    }
    assert!(!parse(&["run", "debian", "--verbose"]).unwrap().verbosity.verbose);
}

#[test]
fn words_that_are_not_text_are_passed_on() {
    let odd = OsString::from_vec(b"a\xff".to_vec());
    let words = [OsStr::new("sarus"), OsStr::new("run"), OsStr::new("debian"), &odd];
    let Command::Run(args) = Arguments::try_parse_from(words).unwrap().command else {
        panic!("not a run");
    };
    assert_eq!(args.words[1], odd);
}

#[test]
fn dockers_options_have_dockers_forms() {
    let args = run(&[
        "-it",
        "--rm",
        "--init",
        "--read-only",
        "-eA=1",
        "-e",
        "B",
        "--env=C=3",
        "--env-file",
        "f",
        "--env-file=g",
        "-w",
        "/w",
        "--entrypoint",
        "",
        "-v/a:/b",
        "--volume=/c:/d:ro",
        "--tmpfs",
        "/t",
        "--mount",
        "type=tmpfs,dst=/m",
        "--device",
        "/dev/fuse",
        "--name",
        "n",
        "--annotation",
        "k=v",
        "--annotation=l=",
        "--pull=always",
        "--pid=private",
        "--platform",
        "linux/arm64",
        "--runtime",
        "crun",
        "debian",
    ]);
    let (process, container) = (&args.process, &args.container);
    assert!(process.tty && process.interactive && process.init);
    assert!(container.rm && container.read_only);
    assert_eq!(args.environment.env, os(&["A=1", "B", "C=3"]));
    assert_eq!(args.environment.env_file, [PathBuf::from("f"), PathBuf::from("g")]);
    assert_eq!(process.workdir.as_deref(), Some(OsStr::new("/w")));
    assert_eq!(process.entrypoint.as_deref(), Some(OsStr::new("")));
    assert_eq!(process.pid, Some(Pid::Private));
    assert_eq!(args.mounts.volume, os(&["/a:/b", "/c:/d:ro"]));
    assert_eq!(args.mounts.tmpfs, os(&["/t"]));
    assert_eq!(args.mounts.mount, os(&["type=tmpfs,dst=/m"]));
    assert_eq!(args.mounts.device, os(&["/dev/fuse"]));
    assert_eq!(container.name.as_deref(), Some("n"));
    assert_eq!(container.annotation, ["k=v", "l="]);
    assert_eq!(container.runtime.as_deref(), Some("crun"));
    assert_eq!(args.pull, Pull::Always);
    assert_eq!(args.place.platform().to_string(), "linux/arm64");
}

#[test]
fn sarus_1s_options_are_known() {
    let args = run(&[
        "--mpi",
        "--mpi-type",
        "mpich",
        "--glibc",
        "--ssh",
        "-n",
        "x",
        "--centralized-repository",
        "debian",
    ]);
    assert!(args.hooks.mpi && args.hooks.glibc && args.hooks.ssh);
    assert_eq!(args.hooks.mpi_type.as_deref(), Some("mpich"));
    assert_eq!(args.container.name.as_deref(), Some("x"));
    assert!(args.place.centralized_repository);
    assert!(run(&["-m", "debian"]).hooks.mpi);
    parse(&["pull", "--temp-dir", "/tmp", "--login", "debian"]).unwrap();
    parse(&["--debug", "images", "--digests"]).unwrap();
}

#[test]
fn every_value_of_pull_is_known_and_no_other() {
    for (word, want) in [
        ("missing", Pull::Missing),
        ("always", Pull::Always),
        ("never", Pull::Never),
        ("newer", Pull::Newer),
    ] {
        assert_eq!(run(&["--pull", word, "debian"]).pull, want);
    }
    assert_eq!(run(&["debian"]).pull, Pull::Missing);
    let error = parse(&["run", "--pull=sometimes", "debian"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (words, want) in [
        (&["run"][..], ErrorKind::MissingRequiredArgument),
        (&["run", "-t"], ErrorKind::MissingRequiredArgument),
        (&["run", "--workdir", "/a", "-w", "/b", "debian"], ErrorKind::ArgumentConflict),
        (&["run", "--name", "a", "--name", "b", "debian"], ErrorKind::ArgumentConflict),
        (&["run", "--no-such-option", "debian"], ErrorKind::UnknownArgument),
        (&["run", "--platform", "linux", "debian"], ErrorKind::ValueValidation),
        (&["pull"], ErrorKind::MissingRequiredArgument),
        (&["pull", "a", "b"], ErrorKind::UnknownArgument),
        (&["pull", "--password-stdin", "a"], ErrorKind::MissingRequiredArgument),
        (&["pull", "--login", "-u", "x", "--password-stdin", "a"], ErrorKind::ArgumentConflict),
        (&["images", "-q", "--format", "json"], ErrorKind::ArgumentConflict),
        (&["images", "--format", "yaml"], ErrorKind::InvalidValue),
        (&["rmi"], ErrorKind::MissingRequiredArgument),
        (&["inspect"], ErrorKind::MissingRequiredArgument),
        (&["export", "debian"], ErrorKind::MissingRequiredArgument),
        (&["unpack-image", "a"], ErrorKind::MissingRequiredArgument),
        (&["completion", "cmd"], ErrorKind::InvalidValue),
        (&["frobnicate"], ErrorKind::InvalidSubcommand),
        (&[], ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
    ] {
        let error = parse(words).unwrap_err();
        assert_eq!(error.kind(), want, "{words:?}");
    }
}

#[test]
fn lists_and_records_have_their_formats() {
    let Command::Images(args) = parse(&["images", "--format", "json"]).unwrap().command else {
        panic!("not images");
    };
    assert_eq!(args.format, Format::Json);
    parse(&["inspect", "--format=json", "debian"]).unwrap();
    parse(&["hooks", "--format=json"]).unwrap();
    parse(&["version", "--format=table"]).unwrap();
    parse(&["rmi", "--force"]).unwrap();
}

// Mounts.

fn bind(source: &str, destination: &str, read_only: bool) -> Mount {
    let source = MountSource::Bind { path: RawString::from(source) };
    Mount { destination: RawString::from(destination), source, read_only }
}

fn tmpfs(destination: &str, size: Option<u64>, mode: Option<u32>) -> Mount {
    let source = MountSource::Tmpfs { size, mode, no_exec: false };
    Mount { destination: RawString::from(destination), source, read_only: false }
}

#[test]
fn a_volume_is_a_source_a_destination_and_options() {
    let cwd = Path::new("/home/u");
    for (given, want) in [
        ("/a:/b", bind("/a", "/b", false)),
        ("/a:/b:ro", bind("/a", "/b", true)),
        ("/a:/b:rw", bind("/a", "/b", false)),
        ("/a:/b:ro,z,rslave", bind("/a", "/b", true)),
        ("/a:/b:", bind("/a", "/b", false)),
        ("./a:/b", bind("/home/u/a", "/b", false)),
        (".:/b", bind("/home/u", "/b", false)),
        ("..:/b", bind("/home/u/..", "/b", false)),
        ("a/b:/b", bind("/home/u/a/b", "/b", false)),
        ("/a//b/./c/:/b", bind("/a/b/c", "/b", false)),
    ] {
        assert_eq!(parse_volume(OsStr::new(given), cwd).unwrap(), want, "{given}");
    }
    let odd = OsStr::from_bytes(b"/a\xff:/b\xfe");
    let mount = parse_volume(odd, cwd).unwrap();
    assert_eq!(mount.destination.as_bytes(), b"/b\xfe");
}

#[test]
fn a_volume_that_is_none_says_what_is_expected() {
    for (given, want) in [
        ("/a", "`-v`: `/a` is given, expected SOURCE:DESTINATION or SOURCE:DESTINATION:ro"),
        ("/a:/b:ro:x", "`-v`: `/a:/b:ro:x` is given, expected SOURCE:DESTINATION or"),
        (":/b", "expected SOURCE:DESTINATION, both not empty"),
        ("/a:", "`-v`: the destination `` is not an absolute path"),
        ("/a:b", "`-v`: the destination `b` is not an absolute path"),
        ("/a:/b:exec", "expected `ro` or `rw` after the second colon"),
        ("data:/b", "`-v data:/b`: `data` is the name of a volume, expected a path of the host"),
    ] {
        let error = parse_volume(OsStr::new(given), Path::new("/")).unwrap_err();
        assert!(error.to_string().contains(want), "{given}: {error}");
        assert!(error.hint().is_some());
    }
    let error = parse_volume(OsStr::new("data:/b"), Path::new("/")).unwrap_err();
    assert_eq!(
        error.hint().as_deref(),
        Some("for a directory below the current one, write `./data`")
    );
}

#[test]
fn the_keys_of_a_mount_come_in_any_order_and_under_each_of_their_names() {
    let cwd = Path::new("/home/u");
    for (given, want) in [
        ("type=bind,source=/a,destination=/b", bind("/a", "/b", false)),
        ("dst=/b,src=/a,type=bind", bind("/a", "/b", false)),
        ("type=bind,src=a,target=/b,readonly", bind("/home/u/a", "/b", true)),
        ("type=bind,src=/a,dst=/b,readonly=true", bind("/a", "/b", true)),
        ("type=bind,src=/a,dst=/b,ro=1", bind("/a", "/b", true)),
        ("type=bind,src=/a,dst=/b,readonly=false", bind("/a", "/b", false)),
        ("type=bind,src=/a,dst=/b,bind-propagation=rslave", bind("/a", "/b", false)),
        ("type=bind,\"src=/a,b\",\"dst=/c\"\"d\"", bind("/a,b", "/c\"d", false)),
        ("type=tmpfs,dst=/b", tmpfs("/b", None, None)),
        (
            "type=tmpfs,dst=/b,tmpfs-size=64m,tmpfs-mode=0700",
            tmpfs("/b", Some(64 << 20), Some(0o700)),
        ),
    ] {
        assert_eq!(parse_mount(OsStr::new(given), cwd).unwrap(), want, "{given}");
    }
}

#[test]
fn a_mount_that_is_none_says_what_is_wrong() {
    for (given, want) in [
        ("source=/a,destination=/b", "`type=` is missing"),
        ("type=bind,destination=/b", "`source=` is missing"),
        ("type=bind,source=/a", "`destination=` is missing"),
        ("type=volume,source=a,destination=/b", "expected `type=bind` or `type=tmpfs`"),
        ("type=bind,source=,destination=/b", "`source` has no value"),
        ("type=bind,source,destination=/b", "`source` has no value"),
        ("type=bind,src=/a,source=/b,dst=/c", "`source` is given twice"),
        ("type=bind,src=/a,dst=/b,readonly,ro", "`ro` is given twice"),
        ("type=bind,src=/a,dst=/b,readonly=maybe", "expected `true` or `false`"),
        ("type=bind,src=/a,dst=b", "the destination `b` is not an absolute path"),
        ("type=bind,src=/a,dst=/b,tmpfs-size=1", "a mount of type `bind` has no tmpfs-size"),
        ("type=tmpfs,src=/a,dst=/b", "a mount of type `tmpfs` has no source"),
        ("type=tmpfs,dst=/b,tmpfs-size=big", "expected a size such as `64m`"),
        ("type=tmpfs,dst=/b,tmpfs-mode=999", "expected an octal mode such as `1777`"),
        ("type=tmpfs,dst=/b,tmpfs-mode=17777", "expected an octal mode such as `1777`"),
        ("type=bind,src=/a,dst=/b,bind-propagation=shared", "expected `rprivate` or `rslave`"),
        ("type=bind,src=/a,dst=/b,consistency=cached", "unknown key `consistency`"),
        ("type=bind,\"src=/a,dst=/b", "the double quotes do not enclose a whole field"),
        ("type=bind,src=\"/a\",dst=/b", "the double quotes do not enclose a whole field"),
        ("type=bind,\"src=/a\"x,dst=/b", "the double quotes do not enclose a whole field"),
        ("", "unknown key ``"),
    ] {
        let error = parse_mount(OsStr::new(given), Path::new("/")).unwrap_err();
        assert!(error.to_string().contains(want), "{given}: {error}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_tmpfs_has_dockers_options() {
    let no_exec = MountSource::Tmpfs { size: None, mode: None, no_exec: true };
    for (given, want) in [
        ("/t", tmpfs("/t", None, None)),
        ("/t:", tmpfs("/t", None, None)),
        ("/t:size=1g", tmpfs("/t", Some(1 << 30), None)),
        ("/t:size=64mb", tmpfs("/t", Some(64 << 20), None)),
        ("/t:size=1GB", tmpfs("/t", Some(1 << 30), None)),
        ("/t:rw,nosuid,nodev,exec,size=65536,mode=1777", tmpfs("/t", Some(65536), Some(0o1777))),
        ("/t:noexec", Mount { source: no_exec, ..tmpfs("/t", None, None) }),
        ("/t:ro", Mount { read_only: true, ..tmpfs("/t", None, None) }),
    ] {
        assert_eq!(parse_tmpfs(OsStr::new(given)).unwrap(), want, "{given}");
    }
    for (given, want) in [
        ("t", "`--tmpfs`: the destination `t` is not an absolute path"),
        ("/t:size=1bb", "`size=1bb` is given, expected a size"),
        ("/t:size=much", "`size=much` is given, expected a size such as `64m`"),
        ("/t:mode=rw", "`mode=rw` is given, expected an octal mode such as `1777`"),
        ("/t:uid=0", "`uid=0` is given, expected size=SIZE, mode=MODE, ro, rw, exec or"),
    ] {
        let error = parse_tmpfs(OsStr::new(given)).unwrap_err();
        assert!(error.to_string().contains(want), "{given}: {error}");
    }
}

#[test]
fn a_device_has_a_place_in_the_container_and_rights() {
    let device = |source: &str, destination: &str, rights: &str| Device {
        source: RawString::from(source),
        destination: RawString::from(destination),
        access: DeviceAccess::parse(rights).unwrap(),
    };
    for (given, want) in [
        ("/dev/fuse", device("/dev/fuse", "/dev/fuse", "rwm")),
        ("/dev/fuse:rw", device("/dev/fuse", "/dev/fuse", "rw")),
        ("/dev/fuse:/dev/f", device("/dev/fuse", "/dev/f", "rwm")),
        ("/dev/fuse:/dev/f:r", device("/dev/fuse", "/dev/f", "r")),
    ] {
        assert_eq!(parse_device(OsStr::new(given)).unwrap(), want, "{given}");
    }
    for (given, want) in [
        ("fuse", "absolute paths of a device"),
        ("/dev/fuse:dev:rw", "absolute paths of a device"),
        ("/dev/fuse:rx", "a selection of r, w and m at the end"),
        ("/dev/fuse:rr", "a selection of r, w and m at the end"),
        ("/dev/fuse:", "a selection of r, w and m at the end"),
        ("/dev/a:/dev/b:r:w", "HOST[:CONTAINER][:rwm]"),
    ] {
        let error = parse_device(OsStr::new(given)).unwrap_err();
        assert!(error.to_string().contains(want), "{given}: {error}");
    }
}

#[test]
fn a_cdi_device_is_told_from_a_path() {
    for (given, want) in [
        ("nvidia.com/gpu=all", true),
        ("vendor.com/class=0:1.a-b", true),
        ("hpe.com/cxi=cxi0", true),
        ("/dev/fuse", false),
        ("/dev/a=b", false),
        ("vendor.com=0", false),
        ("vendor.com/=0", false),
        ("vendor.com/class=", false),
        ("vendor.com/class=a,b", false),
    ] {
        assert_eq!(is_cdi_device(OsStr::new(given)), want, "{given}");
    }
}

// Variables.

fn host() -> Vec<(OsString, OsString)> {
    [("HOME", "/home/u"), ("EMPTY", "")].map(|(k, v)| (k.into(), v.into())).to_vec()
}

#[test]
fn a_variable_has_its_value_or_the_hosts_or_none() {
    let given = os(&["A=1", "B=", "C=x=y", "HOME", "EMPTY", "UNSET"]);
    let got = variables::from_options(&given, &host()).unwrap();
    assert_eq!(got, raw(&["A=1", "B=", "C=x=y", "HOME=/home/u", "EMPTY="]));
    for given in ["=1", ""] {
        let error = variables::from_options(&os(&[given]), &host()).unwrap_err();
        assert_eq!(error.to_string(), format!("`-e {given}` sets a variable without a name"));
    }
}

fn file(content: &[u8]) -> EnvFile {
    EnvFile { path: PathBuf::from("vars"), content: content.to_vec() }
}

#[test]
fn a_file_of_variables_follows_dockers_rules() {
    let content = b"\xEF\xBB\xBF# comment\nA=1\n\n  B= two words \nC=\"quoted\"\r\nHOME\nUNSET\n\
                    D=#no comment\n\t# comment\nE=a=b";
    let got = variables::from_file(&file(content), &host()).unwrap();
    let want = ["A=1", "B= two words ", "C=\"quoted\"", "HOME=/home/u", "D=#no comment", "E=a=b"];
    assert_eq!(got, raw(&want));
    assert_eq!(variables::from_file(&file(b""), &host()).unwrap(), []);
}

#[test]
fn a_line_that_sets_nothing_is_named_with_its_number() {
    for (content, line, shown) in [
        (&b"A=1\n=2\n"[..], 2, "=2"),
        (b"\n\nexport A=1", 3, "export A=1"),
        (b"A B", 1, "A B"),
        (b"A=\0", 1, "A=\0"),
    ] {
        let error = variables::from_file(&file(content), &host()).unwrap_err();
        let want =
            format!("`vars` line {line}: `{shown}` sets no variable: expected NAME=VALUE or NAME");
        assert_eq!(error.to_string(), want);
    }
    let error = variables::read(Path::new("/nowhere/vars")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the file of variables `/nowhere/vars`");
    assert!(error.hint().is_some_and(|hint| hint.contains("--env-file")));
}

// Annotations.

#[test]
fn the_options_for_hooks_are_short_for_annotations() {
    let hooks = |mpi, kind: Option<&str>, glibc, ssh| HookArgs {
        mpi,
        mpi_type: kind.map(str::to_owned),
        glibc,
        ssh,
    };
    let (mpi, glibc) = ("com.hooks.mpi.enabled=true", "com.hooks.glibc.enabled=true");
    let (ssh, sync) = ("com.hooks.ssh.enabled=true", "com.hooks.slurm-global-sync.enabled=true");
    for (given, site, want) in [
        (hooks(false, None, false, false), Some("mpich"), &[][..]),
        (hooks(true, None, false, false), None, &[glibc, mpi]),
        (hooks(true, None, false, false), Some("a"), &[glibc, mpi, "com.hooks.mpi.type=a"]),
        (hooks(false, Some("b"), false, false), Some("a"), &[glibc, mpi, "com.hooks.mpi.type=b"]),
        (hooks(false, None, true, false), None, &[glibc]),
        (hooks(false, None, false, true), None, &[sync, ssh]),
    ] {
        let got = annotations::plan(&given, &[], site).unwrap();
        let mut got: Vec<_> = got.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut want: Vec<_> = want.iter().map(|text| (*text).to_owned()).collect();
        got.sort();
        want.sort();
        assert_eq!(got, want, "{given:?}");
    }
}

#[test]
fn an_annotation_given_wins_and_needs_a_key() {
    let hooks = HookArgs { mpi: true, ..HookArgs::default() };
    let given = ["com.hooks.mpi.enabled=false", "a=b=c", "empty="].map(str::to_owned);
    let got = annotations::plan(&hooks, &given, None).unwrap();
    assert_eq!(got["com.hooks.mpi.enabled"], "false");
    assert_eq!((got["a"].as_str(), got["empty"].as_str()), ("b=c", ""));
    for given in ["key", "=value", ""] {
        let error = annotations::plan(&hooks, &[given.to_owned()], None).unwrap_err();
        let want = format!("`--annotation`: `{given}` is given, expected KEY=VALUE");
        assert_eq!(error.to_string(), want);
    }
}

#[test]
fn an_ssh_server_has_processes_of_its_own() {
    let ssh = HookArgs { ssh: true, ..HookArgs::default() };
    let none = HookArgs::default();
    for (hooks, pid, want) in [
        (&none, None, false),
        (&none, Some(Pid::Host), false),
        (&none, Some(Pid::Private), true),
        (&ssh, None, true),
        (&ssh, Some(Pid::Private), true),
    ] {
        assert_eq!(annotations::has_private_pid(hooks, pid).unwrap(), want);
    }
    let error = annotations::has_private_pid(&ssh, Some(Pid::Host)).unwrap_err();
    assert!(matches!(error, UsageError::Conflict { .. }));
    assert_eq!(error.to_string(), "`--ssh` and `--pid=host` exclude each other");
    assert_eq!(error.hint().as_deref(), Some("an SSH server needs processes of its own"));
}
