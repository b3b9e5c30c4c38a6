//! Attacks of a user on what root's programs do for them while they do it: looking into processes
//! that work with the user's ids, and putting other files where root will look.

use std::path::PathBuf;
use std::process::Command;

use sarus_integration_tests::{Image, Runtime, debian_with, free_port};

use crate::setuid::{IMAGE, Site, is_privileged};

/// Compiles `attack.c` where the user can start it.
fn attacker(site: &Site) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/all/attack.c");
    let program = site.ground.session.directory().join("attack");
    let output =
        Command::new("gcc").args(["-O1", "-o"]).arg(&program).arg(source).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// All hooks that look at the image.
const HOOKS: &str = r#"mkdir /srv/hooks
    for name in 05-glibc 10-mpi; do
        printf '{"version": "1.0.0", "hook": {"path": "/srv/bin/sarus-hook-%s",
            "env": ["MPI_LIBS=/usr/lib/x86_64-linux-gnu/libmpich.so.12"]},
            "when": {"always": true}, "stages": ["createContainer"]}' \
            ${name#*-} > /srv/hooks/$name.json
    done
    echo '{"version": 1, "providers": [{"name": "x", "library": "/usr/lib/x86_64-linux-gnu/libfabric.so.1"}]}' \
        > /srv/fabric.json
    echo '{"version": "1.0.0", "hook": {"path": "/srv/bin/sarus-hook-fabric",
        "env": ["FABRIC_CONFIG=/srv/fabric.json"]}, "when": {"always": true}, "stages": ["precreate"]}' \
        > /srv/hooks/30-fabric.json"#;

const SITE_WITH_HOOKS: &str =
    r#"{"centralizedRepositoryDir": "/srv/store", "hooksDir": ["/srv/hooks"]}"#;

#[test]
fn nobody_looks_through_what_works_for_them_with_privilege() {
    let mut site = Site::with(Runtime::Crun, &debian_with("mpich"));
    site.config = SITE_WITH_HOOKS;
    site.prepare = HOOKS;
    let attack = attacker(&site);
    // The attacker hears the end of the runs by its input.
    let script = "for n in $(seq 6); do sarus run $0 true || echo failed; done | \
                  { $1 look; cat; }";
    let words = ["bash", "-c", script, IMAGE, attack.to_str().unwrap()];
    let output = site.user(&words).run();
    assert_eq!(output.ok(), "tried, some were closed\n", "{output}");
}

/// The hook ssh, which finds the user's home and keys by the host's data base.
const SSH: &str = r#"mkdir /srv/hooks
    echo '{"version": "1.0.0", "hook": {"path": "/srv/bin/sarus-hook-ssh"},
        "when": {"annotations": {"^com.hooks.ssh.enabled$": "^true$"}},
        "stages": ["createRuntime", "poststop"]}' > /srv/hooks/09-ssh.json"#;

fn with_ssh(runtime: Runtime) -> Site {
    let mut site = Site::with(runtime, &Image::busybox().pack());
    site.config = SITE_WITH_HOOKS;
    site.prepare = SSH;
    site.user(&["sarus", "ssh-keygen"]).run().ok();
    site
}

#[test]
fn ssh_works_with_privilege_as_without() {
    for runtime in [Runtime::Runc, Runtime::Crun] {
        let site = with_ssh(runtime);
        let port = free_port();
        let annotation = format!("com.hooks.ssh.port={port}");
        let script = format!("ssh -p {port} localhost 'id -u; grep CapEff /proc/self/status'");
        let words = ["sarus", "--verbose", "run", "--runtime", runtime.name(), "--ssh"];
        let run = ["--annotation", &annotation, IMAGE, "sh", "-c", &script];
        let output = site.user(&[&words[..], &run].concat()).run();
        assert!(is_privileged(&output), "{output}");
        let uid = site.ground.session.uid();
        assert_eq!(output.ok(), format!("{uid}\nCapEff:\t0000000000000000\n"), "{output}");
    }
}

#[test]
fn what_the_user_puts_in_the_place_of_a_log_is_not_read_by_root() {
    let site = with_ssh(Runtime::Crun);
    let attack = attacker(&site);
    // The server never says that it listens, and so the hook waits, and reads the log when it ends.
    let script = "sarus run --ssh -v /srv:/h --annotation com.hooks.ssh.pidfile_container=/no/such \
                  --annotation com.hooks.ssh.port=$2 $0 true 2>&1 | { $1 log /h/secret; cat; }";
    let (port, attack) = (free_port().to_string(), attack.to_str().unwrap());
    let output = site.user(&["bash", "-c", script, IMAGE, attack, &port]).run();
    assert!(output.ok().starts_with("replaced\n"), "{output}");
    assert!(output.stdout.contains("ssh server in the container ended"), "{output}");
    assert!(!output.stdout.contains("secret"), "{output}");
}

#[test]
fn what_the_user_puts_in_the_place_of_dev_gets_nothing_of_roots() {
    let mut site = with_ssh(Runtime::Crun);
    let hooks = format!(
        r#"{SSH}
        echo '{{"version": "1.0.0", "hook": {{"path": "/srv/bin/sarus-hook-mount",
            "args": ["mount", "--device=/dev/null:/dev/planted/node"]}},
            "when": {{"always": true}}, "stages": ["createContainer"]}}' > /srv/hooks/60-mount.json"#
    );
    site.prepare = Box::leak(hooks.into_boxed_str());
    let attack = attacker(&site);
    // In the container `/h` is the site's directory, in which the user may write nothing.
    let script = "for n in 1 2 3 4 5; do \
                  sarus run --ssh -v /srv/readable:/h --annotation com.hooks.ssh.port=$2 $0 true 2>&1 | \
                  { $1 dev /h; cat > /dev/null; }; done; echo in it: $(ls /srv/readable)";
    let (port, attack) = (free_port().to_string(), attack.to_str().unwrap());
    let output = site.user(&["bash", "-c", script, IMAGE, attack, &port]).run();
    assert!(output.ok().starts_with("replaced\n"), "{output}");
    assert!(output.stdout.ends_with("in it:\n"), "{output}");
}

#[test]
fn a_directory_that_is_closed_to_the_user_stays_closed_in_a_hooks_mount() {
    let mut site = Site::with(Runtime::Crun, &Image::busybox().pack());
    site.config = SITE_WITH_HOOKS;
    site.prepare = r#"mkdir /srv/hooks /srv/closed/inner; echo of-root > /srv/closed/inner/file
        echo '{"version": "1.0.0", "hook": {"path": "/srv/bin/sarus-hook-mount",
            "args": ["mount", "--mount=type=bind,src=/srv/closed/inner,dst=/opt/inner"]},
            "when": {"always": true}, "stages": ["createContainer"]}' > /srv/hooks/60-mount.json"#;
    let output = site.user(&["sarus", "run", IMAGE, "cat", "/opt/inner/file"]).run();
    output.explains(125, &["/srv/closed/inner", "Permission denied"]);
}

#[test]
fn an_explanation_that_is_killed_leaves_nothing() {
    let mut site = Site::with(Runtime::Crun, &debian_with("mpich"));
    site.config = SITE_WITH_HOOKS;
    site.prepare = HOOKS;
    let script = "for n in $(seq 1 12); do \
                  timeout -s KILL 0.$(printf %03d $((n * 17))) sarus run --explain=json $0 true; done \
                  > /dev/null; sarus images > /dev/null; sarus ps -q";
    let output = site.user(&["bash", "-c", script, IMAGE]).run();
    assert_eq!(output.ok(), "", "{output}");
}
