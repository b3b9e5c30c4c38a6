//! The hook slurm-sync: as a program of its own, of which each process is a task, and under
//! `sarus run`.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sarus_integration_tests::{Cluster, Invocation, Running, Runtime, Session, Who, wait_gone};
use serde_json::json;

use crate::{Ground, in_every_mode};

in_every_mode!(
    no_command_of_a_step_starts_before_the_last_container_exists,
    a_task_that_does_not_come_is_named_and_ends_the_run,
);

/// How long a process that is to wait is watched not to end.
const WHILE: Duration = Duration::from_millis(300);

/// A step of Slurm's, as its variables say it.
#[derive(Clone, Copy)]
struct Step {
    job: u32,
    tasks: u32,
    nodes: u32,
}

impl Step {
    /// With a job's number that no other test has.
    fn new(tasks: u32, nodes: u32) -> Self {
        Self { job: std::process::id(), tasks, nodes }
    }

    fn variables(self, rank: u32) -> Vec<(&'static str, String)> {
        let node = rank * self.nodes / self.tasks;
        let others: String = (1..self.nodes).map(|node| format!(",other{node}")).collect();
        vec![
            ("SLURM_JOB_ID", self.job.to_string()),
            ("SLURM_STEP_ID", "0".to_owned()),
            ("SLURM_NTASKS", self.tasks.to_string()),
            ("SLURM_PROCID", rank.to_string()),
            ("SLURM_NNODES", self.nodes.to_string()),
            ("SLURM_NODEID", node.to_string()),
            ("SLURM_STEP_NODELIST", format!("localhost{others}")),
        ]
    }
}

/// The hook of one task, as a runtime starts it.
fn task(session: &Session, step: Step, rank: u32) -> Invocation {
    let variables: Vec<String> =
        step.variables(rank).iter().map(|(name, value)| format!("{name}={value}")).collect();
    let bundle = format!("bundle{rank}");
    let user = json!({"uid": session.uid(), "gid": session.gid()});
    let config = json!({"process": {"env": variables, "user": user}, "root": {"path": "rootfs"}});
    session.write(&format!("{bundle}/config.json"), config.to_string());
    let state = json!({"ociVersion": "1.0.2", "id": "x", "status": "creating",
                       "bundle": session.home().join(bundle)});
    session
        .program([session.programs().path("sarus-hook-slurm-sync")])
        .env("HOOK_BASE_DIR", session.home())
        .input(state.to_string())
}

fn directory(session: &mut Session) -> PathBuf {
    let name = session.user().unwrap().name().to_owned();
    session.home().join(name).join(".oci-hooks/slurm-global-sync")
}

fn start(session: &Session, step: Step, ranks: impl IntoIterator<Item = u32>) -> Vec<Running> {
    ranks.into_iter().map(|rank| task(session, step, rank).start()).collect()
}

#[track_caller]
fn all_wait(running: &[Running]) {
    for one in running {
        assert!(!wait_gone(one.pid(), WHILE), "process {} did not wait", one.pid());
    }
}

#[track_caller]
fn all_go(running: Vec<Running>) {
    for one in running {
        let output = one.finish();
        assert_eq!((output.ok(), output.stderr.as_str()), ("", ""), "{output}");
    }
}

/// Waits until a process leads its node: until somebody has bound the node's name.
fn await_leader(session: &Session, step: Step, node: u32) {
    let name = format!("@sarus-slurm-sync/{}/{}.0/{node}/0", session.uid(), step.job);
    let end = Instant::now() + Duration::from_secs(60);
    while !fs_err::read_to_string("/proc/net/unix").unwrap().contains(&name) {
        assert!(Instant::now() < end, "nobody leads node {node}");
        std::thread::yield_now();
    }
}

#[test]
fn hook_slurm_sync_tasks_of_one_node_wait_for_the_last() {
    let mut session = Session::new(Who::User);
    let step = Step::new(4, 1);
    for _again in 0..3 {
        let mut waiting = start(&session, step, [2, 0, 3]);
        all_wait(&waiting);
        waiting.extend(start(&session, step, [1]));
        all_go(waiting);
    }
    assert!(!directory(&mut session).exists(), "one node needs no file");
}

#[test]
fn hook_slurm_sync_tasks_of_several_nodes_meet_by_the_users_key() {
    let mut session = Session::new(Who::User);
    let step = Step::new(8, 4);
    for last in [7, 0] {
        let mut waiting = start(&session, step, (0..8).filter(|rank| *rank != last));
        all_wait(&waiting);
        waiting.extend(start(&session, step, [last]));
        all_go(waiting);
    }
    let directory = directory(&mut session);
    let names: Vec<_> = fs_err::read_dir(&directory).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(names, [directory.join("key")]);
    let data = fs_err::metadata(directory.join("key")).unwrap();
    assert_eq!((data.mode() & 0o777, data.uid()), (0o600, session.uid()));
}

#[test]
fn hook_slurm_sync_names_the_tasks_that_did_not_come() {
    let session = Session::new(Who::User);
    for nodes in [1, 3] {
        let step = Step::new(6, nodes);
        let waiting: Vec<Running> = [0, 1, 3, 5]
            .map(|rank| task(&session, step, rank).env("SYNC_TIMEOUT", "2").start())
            .into_iter()
            .collect();
        for one in waiting {
            one.finish().explains(
                1,
                &["error: hook slurm-sync: not all tasks of step", "within 2 s", "of 6 tasks: 2,4"],
            );
        }
    }
}

#[test]
fn hook_slurm_sync_says_which_node_does_not_answer() {
    let session = Session::new(Who::User);
    let waiting =
        [2, 3].map(|rank| task(&session, Step::new(4, 2), rank).env("SYNC_TIMEOUT", "1").start());
    let outputs = waiting.map(Running::finish);
    for output in &outputs {
        assert!(output.failed(1).contains("first node `localhost` does not answer"), "{output}");
    }
    let hints = outputs.iter().filter(|output| output.stderr.contains("hint: ")).count();
    assert_eq!(hints, 1, "who spoke for the node says what to do");
}

#[test]
fn hook_slurm_sync_goes_on_when_who_spoke_for_a_node_is_replaced() {
    let session = Session::new(Who::User);
    let step = Step::new(5, 2);
    for (leader, node) in [(0, 0), (3, 1)] {
        let first = task(&session, step, leader).start();
        await_leader(&session, step, node);
        let mut waiting = start(&session, step, (0..4).filter(|rank| *rank != leader));
        all_wait(&waiting);
        first.signal(Signal::KILL);
        assert_eq!(first.finish().code(), None);
        all_wait(&waiting);
        // The one that was killed is not here any more, whatever was said of it before.
        waiting.extend(start(&session, step, [4]));
        all_wait(&waiting);
        waiting.extend(start(&session, step, [leader]));
        all_go(waiting);
    }
}

#[test]
fn hook_slurm_sync_heeds_nobody_elses_processes() {
    let session = Session::new(Who::User);
    let step = Step::new(2, 1);
    let name = format!("sarus-slurm-sync/{}/{}.0/0/0", session.uid(), step.job);
    let taken = UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap();
    taken.set_nonblocking(true).unwrap();
    let mut waiting = start(&session, step, [0]);
    all_wait(&waiting);
    // Who comes is told nothing, and goes to the next name.
    let (mut stream, _) = taken.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let read = std::io::Read::read(&mut stream, &mut [0; 16]);
    assert!(matches!(read, Ok(0)), "{read:?}");
    // Root is not the user either.
    let theirs = format!("sarus-slurm-sync/{}/{}.0/0/1", session.uid(), step.job);
    let address = SocketAddr::from_abstract_name(theirs).unwrap();
    let mut stranger = std::os::unix::net::UnixStream::connect_addr(&address).unwrap();
    let _closed = std::io::Write::write_all(&mut stranger, b"rank 1\n");
    all_wait(&waiting);
    waiting.extend(start(&session, step, [1]));
    all_go(waiting);
    // The second task looked there, too.
    assert_ne!(taken.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
}

#[test]
fn hook_slurm_sync_has_nothing_to_do_without_a_step() {
    let session = Session::new(Who::User);
    let plan = task(&session, Step::new(1, 1), 0).args(["--plan"]).run();
    let plan: serde_json::Value = serde_json::from_str(plan.ok()).unwrap();
    assert_eq!(plan["steps"], json!([]), "{plan}");
    assert_eq!(plan["notes"], json!(["waits for nobody: the step has one task"]), "{plan}");
    task(&session, Step::new(1, 1), 0).run().ok();
    let plan = task(&session, Step::new(3, 1), 0).args(["--plan"]).run();
    assert!(plan.ok().contains("wait until all 3 tasks of the step"), "{plan}");
}

/// Installs the hook file, in Sarus 1.7's form.
fn configure(ground: &Ground, timeout: u32) {
    let directory = ground.session.configuration();
    let program = ground.session.configure_program("sarus-hook-slurm-sync");
    let hook = json!({
        "version": "1.0.0",
        "hook": {
            "path": program,
            "env": [
                format!("HOOK_BASE_DIR={}", ground.session.home().display()),
                "PASSWD_FILE=/etc/passwd",
                format!("SYNC_TIMEOUT={timeout}"),
            ],
        },
        "when": {"annotations": {"^com.hooks.slurm-global-sync.enabled$": "^true$"}},
        "stages": ["createContainer"],
    });
    ground.session.configure("hooks.d/07-slurm-sync.json", hook.to_string());
    let config = json!({"hooksDir": [directory.join("hooks.d")]});
    ground.session.configure("sarus.json", config.to_string());
}

fn rank(ground: &Ground, step: Step, rank: u32) -> Invocation {
    let option = ["--annotation", "com.hooks.slurm-global-sync.enabled=true"];
    let run = ground.run_with(&option, &["echo", "started"]);
    let run = step.variables(rank).into_iter().fold(run, |run, (name, value)| run.env(name, value));
    ground.session.configured(run)
}

fn no_command_of_a_step_starts_before_the_last_container_exists(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    configure(&ground, 60);
    let step = Step::new(2, 1);
    let first = rank(&ground, step, 0).start();
    await_leader(&ground.session, step, 0);
    all_wait(std::slice::from_ref(&first));
    let second = rank(&ground, step, 1).start();
    for run in [first, second] {
        assert_eq!(run.finish().ok(), "started\n");
    }
}

fn a_task_that_does_not_come_is_named_and_ends_the_run(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    configure(&ground, 1);
    let output = rank(&ground, Step::new(2, 1), 0).run();
    output.explains(125, &["not all tasks of step", "missing of 2 tasks: 1", "slurm-sync"]);
}

/// Three nodes with two tasks each: all tasks meet, and one that does not come is named by all others.
#[test]
fn hook_slurm_sync_works_under_slurm() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    configure(&ground, 3);
    let cluster = Cluster::start(&ground.session, 3);
    let sarus = ground.session.programs().path("sarus").display().to_string();
    let annotation = "com.hooks.slurm-global-sync.enabled=true";
    let run = format!("exec {sarus} run --annotation {annotation} {} echo started", ground.image);
    let step = |script: &str| {
        let options = ["-N3", "--ntasks-per-node=2"];
        cluster.srun(&ground.session, options).args(["sh", "-c", script]).run()
    };
    assert_eq!(step(&run).ok(), "started\n".repeat(6));
    let output = step(&format!("[ $SLURM_PROCID = 4 ] || {run}"));
    assert_eq!(output.stdout, "", "{output}");
    assert_eq!(output.code(), Some(125), "{output}");
    assert_eq!(output.stderr.matches("missing of 6 tasks: 4").count(), 5, "{output}");
    assert_eq!(cluster.leftovers(), [""; 0]);
}
