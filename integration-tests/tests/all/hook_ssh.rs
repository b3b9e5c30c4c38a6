//! The hook ssh: from one container of a user's into another.

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use rustix::process::Signal;
use sarus_integration_tests::{
    Invocation, Output, Running, Runtime, Session, Terminal, Who, free_port, named,
};
use serde_json::{Value, json};

use crate::{Ground, in_mode};

in_mode!(
    as_user_runc,
    User,
    Runc,
    a_command_runs_in_another_container_of_the_user,
    a_session_has_a_terminal_if_asked,
    the_server_ends_with_the_container,
    what_keeps_the_server_from_starting_is_said
);
in_mode!(
    as_user_crun,
    User,
    Crun,
    a_command_runs_in_another_container_of_the_user,
    a_session_has_a_terminal_if_asked,
    the_server_ends_with_the_container,
    what_keeps_the_server_from_starting_is_said
);

/// Installs the hook file, in Sarus 1.7's form.
fn configure(session: &Session) {
    let program = session.configure_program("sarus-hook-ssh");
    let hook = json!({
        "version": "1.0.0",
        "hook": {
            "path": program,
            "env": [
                format!("HOOK_BASE_DIR={}", session.home().display()),
                "PASSWD_FILE=/etc/passwd",
                "DROPBEAR_DIR=/usr",
                "SERVER_PORT_DEFAULT=15263",
            ],
        },
        "when": {"annotations": {"^com.hooks.ssh.enabled$": "^true$"}},
        "stages": ["createRuntime", "poststop"],
    });
    session.configure("hooks.d/09-ssh.json", hook.to_string());
    let directory = session.configuration().join("hooks.d");
    session.configure("sarus.json", json!({"hooksDir": [directory]}).to_string());
}

fn keys(session: &mut Session) -> PathBuf {
    let name = session.user().unwrap().name().to_owned();
    session.home().join(name).join(".oci-hooks/ssh/keys")
}

fn ground(who: Who, runtime: Runtime) -> Ground {
    let ground = Ground::new(who, runtime);
    configure(&ground.session);
    ground.session.sarus(["ssh-keygen"]).run().ok();
    ground
}

fn with_ssh(ground: &Ground, port: u16, options: &[&str], script: &str) -> Invocation {
    let port = format!("com.hooks.ssh.port={port}");
    let options = [&["--ssh", "--annotation", &port], options].concat();
    ground.session.configured(ground.run_with(&options, &["sh", "-c", script]))
}

/// A container with a server, which stays until its input ends.
fn serve(ground: &Ground, port: u16, options: &[&str]) -> Running {
    let script = "echo of the first > /marker; echo up; cat > /dev/null";
    let first = with_ssh(ground, port, options, script).keep_input().start();
    assert_eq!(first.line(), "up\n");
    first
}

fn a_command_runs_in_another_container_of_the_user(who: Who, runtime: Runtime) {
    let ground = ground(who, runtime);
    let (port, other) = (free_port(), free_port());
    let pidfile = ground.session.home().join("server.pid");
    let annotation = format!("com.hooks.ssh.pidfile_host={}", pidfile.display());
    let first = serve(
        &ground,
        port,
        &["-e", "MARK=it's \"set\"", "--annotation", &annotation, "-w", "/work"],
    );
    let server = fs_err::read_to_string(&pidfile).unwrap();
    assert!(PathBuf::from("/proc").join(server.trim()).exists(), "{server}");
    let command = "echo \"$MARK $IMAGE\"; cat /marker; id -u; id -g; echo $HOME; \
                   grep -e ^NoNewPrivs -e ^CapEff -e ^CapBnd /proc/self/status; \
                   readlink /proc/self/ns/pid; readlink /proc/self/ns/user; exit 7";
    let script = format!("ssh -p {port} localhost '{command}'; echo status $?");
    let second = with_ssh(&ground, other, &["-e", "MARK=second"], &script).run();
    let said = second.ok();
    let (uid, gid) = (ground.session.uid(), ground.session.gid());
    let lines: Vec<&str> = said.lines().collect();
    let home = ground.session.home().display().to_string();
    let want = ["it's \"set\" busybox", "of the first", &uid.to_string(), &gid.to_string(), &home];
    assert_eq!(lines[..5], want, "{second}");
    for line in ["NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(lines.contains(&line), "no {line} in {second}");
    }
    assert_eq!(lines.last(), Some(&"status 7"), "{second}");
    assert_eq!(second.stderr, "", "the server is known");
    // The same namespaces as those of the command of the first container.
    let shim = first.pid();
    let commands = sarus_integration_tests::descendants(shim);
    let of = |kind: &str| {
        let links = commands.iter().map(|pid| format!("/proc/{pid}/ns/{kind}"));
        links.filter_map(|link| fs_err::read_link(link).ok()).collect::<Vec<_>>()
    };
    for kind in ["pid", "user"] {
        let line = lines.iter().find(|line| line.starts_with(&format!("{kind}:["))).unwrap();
        assert!(of(kind).contains(&PathBuf::from(line)), "{kind} of {second}");
    }
    first.finish().ok();
    assert!(!pidfile.exists(), "the file with the server's process id is gone");
    assert_eq!(
        fs_err::read_dir(ground.session.home())
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name() == ".ssh" })
            .count(),
        0,
        "nothing of it is in the user's home"
    );
}

fn a_session_has_a_terminal_if_asked(who: Who, runtime: Runtime) {
    let ground = ground(who, runtime);
    let (port, other) = (free_port(), free_port());
    let first = serve(&ground, port, &[]);
    let script = format!("ssh -t -p {port} localhost 'test -t 0 && test -t 1 && tty'");
    let mut terminal = Terminal::open(24, 80);
    let second = with_ssh(&ground, other, &["-t"], &script).start_on(&terminal);
    terminal.read_until("/dev/pts/");
    second.finish().ok();
    let script = format!("echo 'echo shell of $MARK' | ssh -T -p {port} localhost");
    let second = with_ssh(&ground, other, &[], &script).run();
    assert_eq!(second.ok(), "shell of\n", "{second}");
    first.finish().ok();
}

fn the_server_ends_with_the_container(who: Who, runtime: Runtime) {
    let ground = ground(who, runtime);
    let port = free_port();
    for signal in [Signal::TERM, Signal::KILL] {
        let pidfile = ground.session.home().join("server.pid");
        let annotation = format!("com.hooks.ssh.pidfile_host={}", pidfile.display());
        let first = serve(&ground, port, &["--annotation", &annotation]);
        let server: u32 = fs_err::read_to_string(&pidfile).unwrap().trim().parse().unwrap();
        first.signal(signal);
        let _ended = first.finish();
        let limit = std::time::Duration::from_secs(20);
        assert!(sarus_integration_tests::wait_gone(server, limit), "after {signal:?}");
        assert_eq!(named("dropbear", ground.session.uid()), [0; 0]);
    }
}

fn what_keeps_the_server_from_starting_is_said(who: Who, runtime: Runtime) {
    let mut ground = Ground::new(who, runtime);
    configure(&ground.session);
    let port = free_port();
    let run = |ground: &Ground| with_ssh(ground, port, &[], "echo ran").run();
    run(&ground).explains(125, &["09-ssh.json", "cannot read your ssh key", "`sarus ssh-keygen`"]);
    ground.session.sarus(["ssh-keygen"]).run().ok();
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let said = format!("cannot listen for ssh on port {port}");
    run(&ground).explains(125, &[&said, "com.hooks.ssh.port=N"]);
    drop(taken);
    assert_eq!(run(&ground).ok(), "ran\n");
    let options = ["--annotation", "com.hooks.ssh.enabled=true"];
    let output = ground.session.configured(ground.run_with(&options, &["true"])).run();
    output.explains(125, &["no PID namespace of its own", "`sarus run --ssh`"]);
    let key = keys(&mut ground.session).join("id_dropbear");
    fs_err::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    run(&ground).explains(125, &["not yours alone (mode 0600)", "--overwrite"]);
}

#[test]
fn hook_ssh_makes_keys_once_and_for_their_owner() {
    let mut session = Session::new(Who::User);
    let none = session.sarus(["ssh-keygen"]).run();
    none.explains(125, &["no hook for `sarus run --ssh`", "`sarus hooks`"]);
    configure(&session);
    let directory = keys(&mut session);
    let made = session.sarus(["ssh-keygen"]).run();
    assert_eq!(made.ok().trim_end(), directory.display().to_string());
    let read = |name: &str| fs_err::read(directory.join(name)).unwrap();
    let private = ["id_dropbear", "dropbear_ed25519_host_key"];
    let before = private.map(read);
    for name in private {
        let data = fs_err::metadata(directory.join(name)).unwrap();
        assert_eq!((data.mode() & 0o777, data.uid()), (0o600, session.uid()), "{name}");
    }
    assert_eq!(fs_err::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs_err::read_dir(&directory).unwrap().count(), 4);
    let again = session.sarus(["ssh-keygen"]).run();
    again.explains(125, &["there are keys already", "--overwrite"]);
    assert_eq!(private.map(read), before);
    session.sarus(["ssh-keygen", "--overwrite"]).run().ok();
    assert_ne!(private.map(read), before);
    assert_eq!(fs_err::read_dir(&directory).unwrap().count(), 4);
}

/// A client of the host's, with a key of its own.
fn client(session: &Session, (user, port): (&str, u16), command: &str) -> Output {
    let key = session.home().join("id");
    if !key.exists() {
        let made = session.program(["dropbearkey", "-t", "ed25519", "-f"]).args([&key]).run();
        let public = made.ok().lines().find(|line| line.starts_with("ssh-")).unwrap().to_owned();
        session.write("id.pub", public);
    }
    let host = format!("{user}@localhost");
    let port = port.to_string();
    let words = ["dbclient", "-y", "-T", "-p", &port, "-i", key.to_str().unwrap(), &host, command];
    session.program(words).run()
}

#[test]
fn hook_ssh_lets_in_the_user_and_whom_they_authorize() {
    let mut ground = ground(Who::User, Runtime::Crun);
    let name = ground.session.user().unwrap().name().to_owned();
    let stranger = Session::new(Who::User);
    let port = free_port();
    let first = serve(&ground, port, &[]);
    let refused = client(&stranger, (&name, port), "id");
    assert_ne!(refused.code(), Some(0), "{refused}");
    assert!(refused.stderr.contains("No auth methods"), "{refused}");
    // The user's own key of another place is authorized by its public part.
    assert_ne!(client(&ground.session, (&name, port), "id").code(), Some(0));
    first.finish().ok();
    let public = ground.session.home().join("id.pub");
    let annotation = format!("com.hooks.ssh.authorize_ssh_key={}", public.display());
    let first = serve(&ground, port, &["--annotation", &annotation]);
    let let_in = client(&ground.session, (&name, port), "cat /marker");
    assert_eq!(let_in.ok(), "of the first\n", "{let_in}");
    first.finish().ok();
}

#[test]
fn hook_ssh_shows_what_it_would_do() {
    let mut ground = ground(Who::User, Runtime::Crun);
    let name = ground.session.user().unwrap().name().to_owned();
    assert!(keys(&mut ground.session).exists(), "{name}");
    let home = ground.session.home().to_owned();
    let config =
        json!({"root": {"path": home}, "process": {"user": {"uid": ground.session.uid()}}});
    ground.session.write("bundle/config.json", config.to_string());
    let state = json!({"ociVersion": "1.0.2", "id": "x", "status": "stopped",
                       "bundle": home.join("bundle"),
                       "annotations": {"com.hooks.ssh.pidfile_host": "/tmp/server.pid"}});
    let hook = ground.session.programs().path("sarus-hook-ssh");
    let plan = ground.session.program([hook]).args(["--plan"]).input(state.to_string()).run();
    let plan: Value = serde_json::from_str(plan.ok()).unwrap();
    assert_eq!(plan["steps"][0]["what"], "remove `/tmp/server.pid`", "{plan}");
}
