//! Runs under Slurm, on a cluster of several nodes: each rank starts `sarus`, as users do it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use sarus_integration_tests::{
    Cluster, Invocation, Mpi, Runtime, Session, Who, children, descendants, kill, named, wait_gone,
};
use serde_json::json;

use crate::{Ground, in_mode};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

in_mode!(
    as_user_with_crun,
    User,
    Crun,
    ranks_in_containers_find_each_other,
    what_slurm_keeps_for_pmix_is_inside_where_it_is_outside,
    a_step_has_one_server_on_each_node,
    a_step_ends_as_without_a_container_and_leaves_nothing,
    a_hook_that_fails_ends_the_step_and_leaves_nothing,
    a_rank_has_the_processors_that_it_has_outside,
    ranks_stay_in_the_cgroup_that_root_gave_their_node,
    a_directory_of_a_pmix_server_is_shown_if_it_is_the_users
);

in_mode!(as_user_with_runc, User, Runc, ranks_in_containers_find_each_other);

/// Lines in order: ranks write when they like.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// The program of `hello.c` in the person's home.
fn hello(session: &Session, mpi: Mpi) -> PathBuf {
    let program = session.home().join("hello");
    mpi.compile(&hello_source(), &program);
    program
}

fn hello_source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/hello.c")
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
                  echo $(id -u) in $PWD: $(echo *) $(cd /; echo {,var/}tmp/mine.* dev/shm/*); \
                  rm /tmp/mine.* /var/tmp/mine.* /dev/shm/mine.*";
    let output = cluster.srun(&session, ["-N4"]).args(["bash", "-c", script]).run();
    let (uid, home) = (session.uid(), session.home().display());
    let line = |node: u32| {
        let mine = format!("mine.node{node}");
        format!("{uid} in {home}: shared tmp/{mine} var/tmp/{mine} dev/shm/{mine}")
    };
    assert_eq!(sorted(output.ok()), (1..=4).map(line).collect::<Vec<_>>());
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
    let all = descendants(test.id());
    assert!(all.len() > 6, "{all:?}");
    kill(test.id(), Signal::KILL);
    test.wait().unwrap();
    for pid in bundle.into_iter().chain(all) {
        assert!(wait_gone(pid, LIMIT), "process {pid}");
    }
    fs_err::remove_dir_all(directory.unwrap()).unwrap();
}

/// An image on a cluster.
pub(crate) struct Site {
    cluster: Cluster,
    pub(crate) ground: Ground,
}

impl Site {
    pub(crate) fn with(ground: Ground, nodes: usize) -> Self {
        Self { cluster: Cluster::start(&ground.session, nodes), ground }
    }

    /// With BusyBox as the image.
    fn new((who, runtime): (Who, Runtime), nodes: usize) -> Self {
        Self::with(Ground::new(who, runtime), nodes)
    }

    /// `srun OPTIONS COMMAND`.
    pub(crate) fn bare(&self, options: &[&str], command: &[&str]) -> Invocation {
        self.cluster.srun(&self.ground.session, options).args(command)
    }

    /// `sarus run IMAGE`, as words of a command.
    pub(crate) fn sarus(&self) -> [&str; 5] {
        ["sarus", "run", "--runtime", self.ground.runtime.name(), &self.ground.image]
    }

    /// `srun OPTIONS sarus run IMAGE COMMAND`.
    pub(crate) fn contained(&self, options: &[&str], command: &[&str]) -> Invocation {
        self.bare(options, &self.sarus()).args(command)
    }

    /// FUSE servers of the person on each node.
    fn servers(&self, nodes: usize) -> Vec<usize> {
        let all = named("sarus-fuse", self.ground.session.uid());
        let on = |node| self.cluster.processes(node).iter().filter(|pid| all.contains(pid)).count();
        (1..=nodes).map(on).collect()
    }
}

fn ranks_in_containers_find_each_other(who: Who, runtime: Runtime) {
    for mpi in [Mpi::Mpich, Mpi::OpenMpi] {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("hello");
        mpi.compile(&hello_source(), &program);
        let site = Site::with(Ground::with(who, runtime, &mpi.image(&program)), 2);
        let options = ["-N2", "--ntasks-per-node=2", mpi.srun_option()];
        let output = site.contained(&options, &["hello"]).run();
        assert_eq!((sorted(output.ok()), output.stderr.as_str()), (FOUR_RANKS.to_vec(), ""));
    }
}

fn what_slurm_keeps_for_pmix_is_inside_where_it_is_outside(who: Who, runtime: Runtime) {
    let site = Site::new((who, runtime), 1);
    let script = "echo $PMIX_SECURITY_MODE; ls $PMIX_SERVER_TMPDIR | cut -d _ -f 1-3; \
                  ls -A /tmp | cut -d _ -f 1-2; echo ${PMIX_MCA_psec-none}";
    let kept = "munge,native\npmix_dstor_ds12\npmix_dstor_ds21\nspmix_appdir\n";
    let command = ["sh", "-c", script];
    let outside = site.bare(&["--mpi=pmix"], &command).run();
    assert_eq!(outside.ok(), format!("{kept}none\n"));
    let inside = site.contained(&["--mpi=pmix"], &command).run();
    assert_eq!(inside.ok(), format!("{kept}munge,native\n"));
}

fn a_step_has_one_server_on_each_node(who: Who, runtime: Runtime) {
    let site = Site::new((who, runtime), 4);
    let options = ["-N4", "--ntasks-per-node=8"];
    let step = site.contained(&options, &["sh", "-c", "echo ready; exec sleep 1000"]).start();
    for _ in 0..32 {
        assert_eq!(step.line(), "ready\n");
    }
    assert_eq!(site.servers(4), [1; 4]);
    site.cluster.login(&site.ground.session, ["scancel", "--me"]).run().ok();
    step.finish().failed(143);
    assert_eq!(site.cluster.leftovers(), [""; 0]);
    assert_eq!(site.servers(4), [0; 4]);
    // How much longer the step takes than without containers: nothing is claimed, only said.
    let script = "for i in 1 2 3 4 5; do for with in '' \"$*\"; do a=$(date +%s%N); srun $with true; \
                  echo $(($(date +%s%N) - a)); done; done";
    let options = ["salloc", "--quiet", "-N4", "--ntasks-per-node=8", "bash", "-c", script, "bash"];
    let output = site.cluster.login(&site.ground.session, options).args(site.sarus()).run();
    let times: Vec<f64> = output.ok().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(times.len(), 10, "{output}");
    let best = |with: usize| times.iter().skip(with).step_by(2).copied().fold(f64::MAX, f64::min);
    #[expect(clippy::print_stdout, reason = "a measurement is for who reads the output")]
    fn say(ratio: f64) {
        println!("srun of 4 x 8 `true`: {ratio:.1} times as long in containers");
    }
    say(best(1) / best(0));
}

/// How a step is ended: by what its ranks do, and by what is done to them, given the job's number.
struct Ending<'a> {
    name: &'static str,
    script: &'static str,
    act: &'a dyn Fn(&Site, &str),
    /// What `srun` ends with, without containers and with them.
    codes: [i32; 2],
    /// All of a run is killed at once, so that nobody is left to remove what runs meet at: a file
    /// without content, and its directory. The user's next command does.
    is_kill: bool,
}

fn a_step_ends_as_without_a_container_and_leaves_nothing(who: Who, runtime: Runtime) {
    let site = Site::new((who, runtime), 2);
    let cancel = |site: &Site, arguments: &[&str]| {
        let scancel = site.cluster.login(&site.ground.session, ["scancel"]);
        scancel.args(arguments).run().ok();
    };
    let failed = |_: &Site, _: &str| ();
    let cancelled = |site: &Site, job: &str| cancel(site, &[job]);
    let killed = |site: &Site, job: &str| cancel(site, &["--signal=KILL", &format!("{job}.0")]);
    // As the end of a cgroup does.
    let killed_on_a_node = |site: &Site, _: &str| {
        let tasks = site.cluster.processes(1).into_iter().filter(|pid| !is_slurms(*pid));
        tasks.for_each(|pid| kill(pid, Signal::KILL));
    };
    let ending = |name, script, act, codes, is_kill| Ending { name, script, act, codes, is_kill };
    for ending in [
        ending("failed", "[ $SLURM_PROCID = 2 ] && exit 3", &failed, [143, 143], false),
        ending("cancelled", "", &cancelled, [143, 143], false),
        ending("killed", "", &killed, [137, 137], true),
        // `srun` prefers a signal to a status. Of the other node's tasks it sees those: they were
        // terminated, and `sarus` then ends with 143.
        ending("killed on a node", "", &killed_on_a_node, [143, 137], true),
    ] {
        assert_ends(&site, &ending);
    }
}

fn a_hook_that_fails_ends_the_step_and_leaves_nothing(who: Who, runtime: Runtime) {
    let site = Site::new((who, runtime), 2);
    let session = &site.ground.session;
    let directory = session.configuration().join("hooks.d");
    session.configure("sarus.json", json!({"hooksDir": [directory]}).to_string());
    let megabyte = "head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 4";
    for stage in ["precreate", "createRuntime", "createContainer"] {
        for (script, said) in [
            ("echo no licence >&2; exit 3", "no licence"),
            ("exec sleep 1000", "hooks.d/10-broken.json"),
            ("kill -SEGV $$", "hooks.d/10-broken.json"),
            (megabyte, "xxxxx"),
        ] {
            let hook = json!({
                "version": "1.0.0",
                "hook": {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1},
                "when": {"always": true},
                "stages": [stage],
            });
            session.configure("hooks.d/10-broken.json", hook.to_string());
            let output = site.contained(&["-N2", "--ntasks-per-node=2"], &["true"]).run();
            assert_eq!(output.code(), Some(125), "{stage}: {output}");
            let errors = output.stderr.matches("error: hook `").count();
            assert_eq!(errors, 4, "one for each task, at {stage}: {output}");
            assert!(output.stderr.contains(said), "{stage}: {output}");
            assert!(output.stderr.len() < 20_000, "{stage}: {} bytes", output.stderr.len());
            assert_eq!(site.cluster.leftovers(), [""; 0], "{stage}: {script}");
        }
    }
}

fn assert_ends(site: &Site, ending: &Ending<'_>) {
    let Ending { name, script, act, codes, is_kill } = *ending;
    let script = format!("echo $SLURM_JOB_ID; read line; {script}\nexec sleep 1000");
    let (options, command) = (["-N2", "--ntasks-per-node=2", "-K"], ["sh", "-c", &script]);
    let steps = [site.bare(&options, &command), site.contained(&options, &command)];
    for (step, code) in steps.into_iter().zip(codes) {
        let mut step = step.keep_input().start();
        let job = step.line();
        (0..3).for_each(|_| assert_eq!(step.line(), job));
        step.write("go on\n");
        act(site, job.trim());
        let output = step.finish();
        assert_eq!(output.code(), Some(code), "{name}: {output}");
    }
    let meeting = format!("file /dev/shm/sarus-{}", site.ground.session.uid());
    let mut left = site.cluster.leftovers();
    if is_kill {
        left.retain(|line| !line.ends_with(&meeting));
        site.bare(&["-N2"], &["sarus", "ps"]).run().ok();
        left.extend(site.cluster.leftovers());
    }
    assert_eq!(left, [""; 0], "{name}");
}

/// Whether a process is a step's manager, or one on the way to become a task.
fn is_slurms(pid: u32) -> bool {
    let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.starts_with("slurm")
}

fn a_rank_has_the_processors_that_it_has_outside(who: Who, runtime: Runtime) {
    let site = Site::new((who, runtime), 2);
    let options = ["-N2", "--ntasks-per-node=2", "--cpu-bind=map_cpu:1,0"];
    let script = "echo $SLURM_PROCID $(grep Cpus_allowed_list /proc/self/status)";
    let want = ["1", "0", "1", "0"];
    let want: Vec<_> =
        (0..).zip(want).map(|(rank, cpu)| format!("{rank} Cpus_allowed_list: {cpu}")).collect();
    for step in [
        site.bare(&options, &["sh", "-c", script]),
        site.contained(&options, &["sh", "-c", script]),
    ] {
        assert_eq!(sorted(step.run().ok()), want);
    }
}

/// A cgroup of the test's own.
struct Cgroup(PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs_err::remove_dir(&self.0));
    }
}

// The name has it run alone with tests of root's, which would see the cgroup.
fn ranks_stay_in_the_cgroup_that_root_gave_their_node(who: Who, runtime: Runtime) {
    let hierarchy = Path::new("/sys/fs/cgroup/freezer");
    let name = format!("sarus-it-{}", std::process::id());
    let cgroup = Cgroup(hierarchy.join(&name));
    fs_err::create_dir(&cgroup.0).unwrap();
    let site = Site::new((who, runtime), 1);
    let (own, above) = (cgroup.0.display(), hierarchy.display());
    let put = |place: &dyn std::fmt::Display| {
        let script = format!("cat /run/slurmd.pid > {place}/cgroup.procs");
        site.cluster.on_node(1, &["sh", "-c", &script]);
    };
    put(&own);
    let script = "grep freezer /proc/self/cgroup; cat /proc/self/cgroup";
    let both = [
        site.bare(&["-n2"], &["sh", "-c", script]),
        site.contained(&["-n2"], &["sh", "-c", script]),
    ];
    let outputs = both.map(|step| step.run().ok().to_owned());
    let [outside, inside] = outputs.each_ref().map(|output| sorted(output));
    assert!(outside.iter().any(|line| line.ends_with(&format!(":freezer:/{name}"))), "{outside:?}");
    assert_eq!(inside, outside);
    assert_eq!(site.cluster.leftovers(), [""; 0]);
    put(&above);
    fs_err::remove_dir(&cgroup.0).unwrap();
}

fn a_directory_of_a_pmix_server_is_shown_if_it_is_the_users(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let users = ground.session.write("server/file", "");
    let roots = ground.session.directory().join("pmix.1.0/file");
    fs_err::create_dir(roots.parent().unwrap()).unwrap();
    fs_err::write(&roots, "").unwrap();
    for (file, want) in [(&users, "file\n"), (&roots, "")] {
        let directory = file.parent().unwrap().display();
        for (name, value) in [
            ("PMIX_SERVER_TMPDIR", format!("{directory}/")),
            ("PMIX_DSTORE_21_BASE_PATH", format!("{directory}//store")),
        ] {
            let script = format!("ls {directory} 2> /dev/null; true");
            let output = ground.shell(&script).env(name, &value).run();
            assert_eq!(output.ok(), want, "{name}={value}");
        }
    }
}
