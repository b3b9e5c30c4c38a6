//! Runs under Slurm, on a cluster of several nodes: each rank starts `sarus`, as users do it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use sarus_integration_tests::{Cluster, Mpi, Session, Who, children, kill, wait_gone};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Lines in order: ranks write when they like.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// The program of `hello.c` in the person's home.
fn hello(session: &Session, mpi: Mpi) -> PathBuf {
    let program = session.home().join("hello");
    mpi.compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/hello.c"), &program);
    program
}

/// What `hello` says on two nodes with two ranks each.
const FOUR_RANKS: [&str; 4] = [
    "node1: 0 of 4, sum 6",
    "node1: 1 of 4, sum 6",
    "node2: 2 of 4, sum 6",
    "node2: 3 of 4, sum 6",
];

#[test]
fn nodes_have_names_and_places_of_their_own_and_the_session_in_common() {
    let session = Session::new(Who::User);
    let cluster = Cluster::start(&session, 4);
    let output = cluster.srun(&session, ["-N4"]).args(["hostname"]).run();
    assert_eq!(sorted(output.ok()), ["node1", "node2", "node3", "node4"]);
    session.write("shared", "");
    let script = "for place in /tmp /var/tmp /dev/shm; do : > $place/mine.$(hostname); done; \
                  echo $(id -un) in $PWD: $(echo *) $(cd /; echo tmp/* var/tmp/* dev/shm/*); \
                  rm /tmp/mine.* /var/tmp/mine.* /dev/shm/mine.*";
    let output = cluster.srun(&session, ["-N4"]).args(["sh", "-c", script]).run();
    let (home, above) = (session.home(), session.directory().strip_prefix("/").unwrap());
    let name = fs_err::read_to_string("/etc/passwd").unwrap();
    let name = name.lines().find(|line| line.contains(home.to_str().unwrap())).unwrap();
    let name = name.split(':').next().unwrap();
    let want: Vec<_> = (1..=4)
        .map(|node| {
            let mine = format!("mine.node{node}");
            let (home, above) = (home.display(), above.display());
            format!("{name} in {home}: shared tmp/{mine} var/tmp/{mine} {above} dev/shm/{mine}")
        })
        .collect();
    assert_eq!(sorted(output.ok()), want);
}

#[test]
fn a_step_has_the_gpus_it_asked_for() {
    let session = Session::new(Who::User);
    let cluster = Cluster::start(&session, 1);
    let script = ["sh", "-c", "echo ${CUDA_VISIBLE_DEVICES-none}"];
    for (options, want) in
        [(&["--gres=gpu:2"] as &[_], "0,1\n"), (&["--gres=gpu:1"], "0\n"), (&[], "none\n")]
    {
        assert_eq!(cluster.srun(&session, options).args(script).run().ok(), want, "{options:?}");
    }
}

#[test]
fn both_kinds_of_mpi_start_on_several_nodes() {
    let session = Session::new(Who::User);
    let cluster = Cluster::start(&session, 2);
    for mpi in [Mpi::Mpich, Mpi::OpenMpi] {
        let options = ["-N2", "--ntasks-per-node=2", mpi.srun_option()];
        let output = cluster.srun(&session, options).args([hello(&session, mpi)]).run();
        assert_eq!(sorted(output.ok()), FOUR_RANKS, "{output}");
    }
}

#[test]
fn what_a_job_leaves_on_a_node_is_found() {
    let session = Session::new(Who::User);
    let cluster = Cluster::start(&session, 2);
    cluster.srun(&session, ["-N2"]).args(["true"]).run().ok();
    assert_eq!(cluster.leftovers(), [""; 0]);
    let script = ": > /dev/shm/a; mkdir /tmp/b; mount -n -t tmpfs sarus /mnt";
    cluster.on_node(2, &["sh", "-c", script]);
    let found = cluster.leftovers();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("node2: file /dev/shm/a"), "{found:?}");
    cluster.on_node(2, &["sh", "-c", "umount -n /mnt; rm -r /dev/shm/a /tmp/b"]);
    assert_eq!(cluster.leftovers(), [""; 0]);
}

/// Set for a test that is to be killed: it starts a cluster and waits.
const TO_BE_KILLED: &str = "SARUS_IT_TO_BE_KILLED";

#[test]
fn a_cluster_ends_with_the_test_that_is_killed() {
    let session = Session::new(Who::User);
    if std::env::var_os(TO_BE_KILLED).is_some() {
        let cluster = Cluster::start(&session, 2);
        let job = cluster.srun(&session, ["-N2"]).args(["sleep", "1000"]).start();
        println!("directory {}", session.directory().display());
        job.finish();
    }
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "slurm::a_cluster_ends_with_the_test_that_is_killed", "--nocapture"])
        .env(TO_BE_KILLED, "yes")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(test.stdout.take().unwrap()).lines().map(Result::unwrap);
    let directory = lines.find_map(|line| line.strip_prefix("directory ").map(PathBuf::from));
    let bundle = children(test.id());
    let all = sarus_integration_tests::descendants(test.id());
    assert!(all.len() > 6, "{all:?}");
    kill(test.id(), Signal::KILL);
    test.wait().unwrap();
    for pid in bundle.into_iter().chain(all) {
        assert!(wait_gone(pid, LIMIT), "process {pid}");
    }
    fs_err::remove_dir_all(directory.unwrap()).unwrap();
}
