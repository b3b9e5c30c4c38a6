//! Which system calls a command may make: with the built-in profile, a site's, and none.

use std::path::Path;
use std::process::Command;

use sarus_integration_tests::{Image, Invocation, Runtime, Tar, Terminal, Who};
use serde_json::{Value, json};

use crate::{Ground, in_every_mode, in_mode};

in_every_mode!(
    the_command_has_one_filter_more_than_its_caller,
    what_a_container_has_no_use_for_is_refused,
    mpi_debuggers_and_threads_work,
    nothing_types_into_the_callers_terminal,
    an_init_has_the_filter_too,
);

in_mode!(
    as_root_runc_of_a_site,
    Root,
    Runc,
    a_sites_profile_replaces_the_built_in_one,
    a_site_can_do_without
);
in_mode!(
    as_root_crun_of_a_site,
    Root,
    Crun,
    a_sites_profile_replaces_the_built_in_one,
    a_site_can_do_without
);

/// BusyBox and the program `calls`, without a library.
fn ground(who: Who, runtime: Runtime) -> Ground {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("calls");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/calls.c");
    let mut compiler = Command::new("gcc");
    compiler.args(["-static", "-pthread", "-O1", "-o"]).arg(&program).arg(&source);
    let output = compiler.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tar = Tar::new().file("bin/calls", fs_err::read(&program).unwrap()).mode(0o755);
    Ground::with(who, runtime, &Image::busybox().layer(&tar).pack())
}

/// `run`, with a site's configuration and profile where no other test sees them.
fn with_site(ground: &Ground, run: Invocation, config: &Value, profile: &Value) -> Invocation {
    let site = ground.session.directory().join("site");
    fs_err::create_dir_all(&site).unwrap();
    let script = r#"set -e
        mount -t tmpfs none "$0"; mkdir "$0/upper" "$0/work"
        mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" none /etc
        mkdir -p /etc/sarus
        printf %s "$CONFIG" > /etc/sarus/sarus.json
        printf %s "$PROFILE" > /etc/sarus/seccomp.json
        exec "$@""#;
    run.under(["unshare", "--mount", "sh", "-c", script, site.to_str().unwrap()])
        .env("CONFIG", config.to_string())
        .env("PROFILE", profile.to_string())
}

/// Values of `imageMount`: privileged, and rootless under a site's configuration.
const IMAGE_MOUNTS: [&str; 2] = ["auto", "fuse"];

fn the_command_has_one_filter_more_than_its_caller(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "sed -n 's/^Seccomp_filters:.//p' /proc/self/status";
    let outside = ground.session.program(["sh", "-c", script]).run();
    let outside: u32 = outside.ok().trim().parse().unwrap();
    let output = ground.shell(&format!("grep '^Seccomp:' /proc/self/status; {script}")).run();
    assert_eq!(output.ok(), format!("Seccomp:\t2\n{}\n", outside + 1));
}

fn what_a_container_has_no_use_for_is_refused(who: Who, runtime: Runtime) {
    let ground = ground(who, runtime);
    let output = ground.run(&["calls", "refused"]).run();
    for line in output.ok().lines() {
        let (name, errno) = line.split_once(' ').unwrap();
        let want = match name {
            "clone3" | "io_uring_setup" | "newer" => "38",
            _ => "1",
        };
        assert_eq!(errno, want, "{name}: {output}");
    }
    assert_eq!(output.stdout.lines().count(), 20, "{output}");
}

fn mpi_debuggers_and_threads_work(who: Who, runtime: Runtime) {
    let output = ground(who, runtime).run(&["calls", "works"]).run();
    for line in output.ok().lines() {
        assert!(line.ends_with(" 0"), "{line} in {output}");
    }
    assert_eq!(output.stdout.lines().count(), 17, "{output}");
}

fn nothing_types_into_the_callers_terminal(who: Who, runtime: Runtime) {
    let ground = ground(who, runtime);
    for options in [&["-t"][..], &[]] {
        let mut terminal = Terminal::open(24, 80);
        let run = ground.run_with(options, &["calls", "type"]).start_on(&terminal);
        let seen = terminal.read_until("TIOCGWINSZ 0");
        for line in ["TIOCSTI 1", "TIOCSTI-long 1", "TIOCLINUX 1"] {
            assert!(seen.contains(line), "{options:?}: {seen}");
        }
        assert_eq!(run.finish().code(), Some(0), "{options:?}");
    }
}

fn an_init_has_the_filter_too(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "grep '^Seccomp:' /proc/$PPID/status /proc/self/status; exit 5";
    let output = ground.run_with(&["--init"], &["sh", "-c", script]).run();
    assert_eq!(output.code(), Some(5), "{output}");
    assert_eq!(output.stdout.matches("Seccomp:\t2\n").count(), 2, "{output}");
}

fn a_sites_profile_replaces_the_built_in_one(who: Who, runtime: Runtime) {
    let ground = ground(who, runtime);
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
            {"names": ["sync", "no_such_call"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["add_key"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_CHOWN"]}},
        ],
    });
    for mount in IMAGE_MOUNTS {
        let config = json!({"seccompProfile": "/etc/sarus/seccomp.json", "imageMount": mount});
        let run = |words: &[&str]| with_site(&ground, ground.run(words), &config, &profile).run();
        let output = run(&["sh", "-c", "chmod 700 /tmp"]);
        assert!(output.failed(1).contains("Operation not supported"), "{output}");
        assert_eq!(run(&["sync"]).code(), Some(159));
        assert_eq!(run(&["sh", "-c", "grep '^Seccomp:' /proc/self/status"]).ok(), "Seccomp:\t2\n");
        let output = run(&["calls", "refused"]);
        assert!(output.ok().contains("unshare-user 0\n"), "{output}");
    }
}

fn a_site_can_do_without(who: Who, runtime: Runtime) {
    let ground = ground(who, runtime);
    for mount in IMAGE_MOUNTS {
        let config = json!({"seccompProfile": "unconfined", "imageMount": mount});
        let run = |words: &[&str]| with_site(&ground, ground.run(words), &config, &json!({})).run();
        let output = run(&["calls", "refused"]);
        assert!(output.ok().contains("unshare-user 0\n"), "{output}");
    }
}

#[test]
fn a_profile_that_cannot_be_used_starts_nothing_for_root() {
    let ground = Ground::new(Who::Root, Runtime::Crun);
    let config = json!({"seccompProfile": "/etc/sarus/seccomp.json"});
    let run = |profile: &Value| with_site(&ground, ground.run(&["true"]), &config, profile);
    run(&json!({"defaultAction": "SCMP_ACT_NOTIFY"})).run().explains(
        125,
        &[
            "cannot use the seccomp profile",
            "`/etc/sarus/seccomp.json` is not valid",
            "line 1: `defaultAction` is \"SCMP_ACT_NOTIFY\"",
        ],
    );
    let args: Vec<Value> =
        (0..2000).map(|value| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"})).collect();
    let rule = json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "args": args});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    run(&profile).run().explains(125, &["more than the kernel's 4096"]);
    let loose = run(&json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    let loose = loose.under(["sh", "-c", "chmod 666 /etc/sarus/seccomp.json; exec \"$@\"", "sh"]);
    loose.run().explains(125, &["`/etc/sarus/seccomp.json` is not safe", "chmod"]);
    let absent = json!({"seccompProfile": "/etc/sarus/none.json", "securityChecks": false});
    let absent = with_site(&ground, ground.run(&["true"]), &absent, &json!({})).run();
    absent.explains(125, &["cannot read seccomp profile `/etc/sarus/none.json`"]);
}
