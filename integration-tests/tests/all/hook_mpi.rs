//! The hook `mpi`: real MPI libraries, standing for a host's, in real images and made-up ones.

use std::path::{Path, PathBuf};

use sarus_integration_tests::{
    Invocation, Runtime, Session, Who, copy_stack, debian_with,
};
use serde_json::{Value, json};

use crate::{Ground, in_every_mode};

in_every_mode!(the_hosts_mpi_runs_the_images_program);

/// What the image's own MPICH says of itself.
const OWN: &str = "rank 0 of 1: MPICH Version:\t3.4.1\n";

/// The hook as Sarus 1.7 documents it, with our path.
fn hook(session: &Session, name: &str, variables: &[String]) -> Value {
    json!({
        "version": "1.0.0",
        "hook": {"path": session.programs().path(&format!("sarus-hook-{name}")), "env": variables},
        "when": {"annotations": {format!("^com.hooks.{name}.enabled$"): "^true$"}},
        "stages": ["createContainer"],
    })
}

/// Lets a session have the MPI hook with variables.
fn configure(session: &Session, variables: &[String]) {
    let hooks = session.configuration().join("hooks.d");
    session.configure("hooks.d/10-mpi.json", hook(session, "mpi", variables).to_string());
    session.configure("sarus.json", json!({"hooksDir": [hooks]}).to_string());
}

/// `MPI_LIBS` of libraries in a directory.
fn libs(directory: &Path, names: &[&str]) -> String {
    let paths: Vec<String> =
        names.iter().map(|name| directory.join(name).display().to_string()).collect();
    format!("MPI_LIBS={}", paths.join(":"))
}

fn run(ground: &Ground, options: &[&str], command: &[&str]) -> Invocation {
    ground.session.configured(ground.run_with(options, command))
}

fn the_hosts_mpi_runs_the_images_program(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian_with("mpich"));
    let session = &ground.session;
    assert_eq!(run(&ground, &[], &["hello"]).run().ok(), OWN);
    for (stack, names, want) in [
        ("impi", &["libmpi.so.12.0.0", "libmpifort.so.12.0.0"][..], "Intel(R) MPI Library 2021.19"),
        ("mpich-5.0.2", &["libmpi.so.12"], "MPICH Version:      5.0.2"),
        ("mpich-3.4.3.post1", &["libmpi.so.12"], "MPICH Version:      3.4.3"),
    ] {
        let directory = copy_stack(session, stack).join("lib");
        configure(session, &[libs(&directory, names)]);
        let output = run(&ground, &["--mpi"], &["hello"]).run();
        let said = output.ok();
        assert!(said.starts_with("rank 0 of 1: ") && said.contains(want), "{output}");
        assert_eq!(output.stderr, "", "{stack}");
    }
    assert_eq!(run(&ground, &[], &["hello"]).run().ok(), OWN, "without --mpi");
}

#[expect(dead_code, reason = "wip")]
fn unused() -> PathBuf {
    PathBuf::new()
}
