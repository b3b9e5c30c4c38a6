//! The guides for administrators and for researchers: every command that they show is run.

use std::path::Path;
use std::process::Command;

use sarus_integration_tests::{Cluster, Runtime, Who, copy_stack, debian_with};

use crate::Ground;
use crate::hook_mpi::{configure, libs};

const GUIDES: [&str; 2] =
    [include_str!("../../../docs/MPI.md"), include_str!("../../../docs/ADMINISTRATION.md")];

/// The commands of both guides that stand after a prompt.
fn commands(prompt: &str) -> Vec<&'static str> {
    let blocks = GUIDES.iter().flat_map(|guide| guide.split("```console\n").skip(1));
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    lines.filter_map(|line| line.strip_prefix(prompt)).collect()
}

/// What a command must say, besides ending well.
fn expected(command: &str) -> &'static [&'static str] {
    let has = |word: &str| command.split_whitespace().any(|found| found == word);
    match command {
        _ if has("--explain") => &["Mounts\n", "10-mpi runs", "/libmpi.so.12"],
        _ if has("hooks") => &["10-mpi", "yes"],
        _ if command.contains("ldd ") => &["libmpich.so.12"],
        _ if has("--gres=gpu:1") => &["0\n"],
        _ if has("srun") && has("--mpi") => &["rank 0 of 4: ", "rank 3 of 4: ", "5.0.2"],
        _ if has("srun") => &["rank 0 of 4: ", "rank 3 of 4: ", "3.4.1"],
        _ => &[],
    }
}

#[test]
fn what_the_guides_tell_users_works() {
    let ground = Ground::with(Who::User, Runtime::Crun, &debian_with("mpich"));
    let cluster = Cluster::start(&ground.session, 2);
    let stack = copy_stack(&ground.session, "mpich-5.0.2").join("lib");
    configure(&ground.session, &[libs(&stack, &["libmpi.so.12"])]);
    let hook = ground.session.home().join(".config/sarus/hooks.d/10-mpi.json");
    let file = fs_err::read_to_string(&hook).unwrap();
    fs_err::write(&hook, file.replacen('{', r#"{"sarus": {"plan": true}, "#, 1)).unwrap();
    let commands = commands("$ ");
    assert!(commands.len() >= 8, "{commands:?}");
    for command in commands {
        let words = command.replace("IMAGE", &ground.image);
        let step = cluster.login(&ground.session, ["bash", "-c", &words]);
        // The wheel's own choice needs a network card of a kind.
        let output = step.env("MPIR_CVAR_CH4_NETMOD", "ofi").env("FI_PROVIDER", "tcp").run();
        for part in expected(command) {
            assert!(output.ok().contains(part), "nothing of {part:?} for {command:?}: {output}");
        }
        output.ok();
    }
}

#[test]
fn what_the_guides_tell_administrators_works() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let stage = directory.path().display();
    let programs = std::env::current_exe().unwrap();
    let built = programs.parent().and_then(Path::parent).unwrap();
    let commands = commands("# ");
    assert!(commands.len() >= 2, "{commands:?}");
    for command in commands {
        // The same places, in a directory of the test's own.
        let words = match command.starts_with("ci/") {
            true => command.to_owned(),
            false => command
                .replace(" /opt/", &format!(" {stage}/opt/"))
                .replace(" /etc/", &format!(" {stage}/etc/")),
        };
        let output = Command::new("bash")
            .args(["-c", &words])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .env("DESTDIR", directory.path())
            .env("SARUS_BUILD_DIR", built)
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for name in ["05-glibc.json", "10-mpi.json"] {
        assert!(directory.path().join("etc/sarus/hooks.d").join(name).is_file(), "{name}");
    }
}
