//! A Slurm cluster of several nodes on this machine, for one test.
//!
//! All of it is one bundle of namespaces (process, network, mount, UTS, IPC) without a way out, whose
//! process 1 ends with a pipe that the test holds: the test may end in any way, and nothing stays.
//! In it every node has namespaces of its own, an address of TEST-NET-2 on a bridge, a name, and its
//! own `/tmp`, `/var/tmp`, `/dev/shm` and `/run`. The session's directory is on all of them at the
//! same path, as a cluster's file system is.
//!
//! The scripts in `cluster/` make it; `slurm.conf` is theirs.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::command::{Invocation, run};
use crate::processes::{
    children, descendants, describe, forget_child, kill, remember_child, wait_gone,
};
use crate::session::Session;

/// Process 1 of the bundle.
const BUNDLE: &str = include_str!("cluster/bundle.sh");
/// One node.
const NODE: &str = include_str!("cluster/node.sh");

/// Processors that each node has for Slurm, whatever the machine has.
pub const NODE_CPUS: usize = 8;
/// GPUs that each node has for Slurm; their devices do nothing.
pub const NODE_GPUS: usize = 4;

/// Times that the nodes' daemons are looked for.
const ATTEMPTS_MAX: usize = 100;

/// Where Slurm's configuration is in the bundle.
const SLURM_CONF: &str = "/run/cluster/slurm.conf";
/// The cluster starts in less than a second, but the machine may be busy.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What a step leaves behind for a moment is gone by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A cluster that ends with this value, which fails the test if a job left something on a node.
/// To be dropped before its session.
#[derive(Debug)]
pub struct Cluster {
    /// `unshare`, outside the bundle.
    child: Child,
    /// While it is open, the bundle lives.
    life: Option<ChildStdin>,
    /// Process 1 of the bundle.
    init: u32,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    name: String,
    /// Its slurmd, by whose namespaces the node is found.
    pid: u32,
    /// What was there before any job.
    seen: BTreeSet<String>,
}

impl Cluster {
    /// Starts `nodes` nodes, `node1` and up, and waits until Slurm has them all. Of the sessions
    /// only this one can be used with it.
    pub fn start(session: &Session, nodes: usize) -> Self {
        let (nodes, cpus, gpus) = (nodes.to_string(), NODE_CPUS.to_string(), NODE_GPUS.to_string());
        let mut child = Command::new("unshare")
            .args(["--fork", "--pid", "--net", "--mount", "--uts", "--ipc", "bash", "-c", BUNDLE])
            .args(["bundle", &nodes, &cpus, &gpus, NODE])
            .arg(session.directory())
            .args(profiles())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is installed");
        remember_child(child.id());
        let (life, output) = (child.stdin.take(), child.stdout.take().expect("a pipe"));
        let (sender, ready) = channel();
        std::thread::spawn(move || {
            let line = BufReader::new(output).lines().next();
            drop(sender.send(line));
        });
        let mut cluster = Self { child, life, init: 0, nodes: Vec::new() };
        let said = ready.recv_timeout(START_LIMIT);
        cluster.init = children(cluster.child.id()).into_iter().next().unwrap_or(0);
        assert!(
            matches!(&said, Ok(Some(Ok(line))) if line == "ready"),
            "the cluster does not start: {said:?}"
        );
        // The kernel's lists of children miss some while others of them end.
        for _ in 0..ATTEMPTS_MAX {
            let daemons = descendants(cluster.init);
            cluster.nodes = daemons.into_iter().filter_map(Node::of_daemon).collect();
            if cluster.nodes.len().to_string() == nodes {
                break;
            }
        }
        cluster.nodes.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(cluster.nodes.len().to_string(), nodes, "nodes that were found");
        cluster
    }

    /// `srun` with options, as the session's person on the login node; the program's words are to
    /// be added. The step has the variables that the invocation has.
    pub fn srun(
        &self,
        session: &Session,
        options: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Invocation {
        self.login(session, ["srun"]).args(options)
    }

    /// Any program, as the session's person on the login node, where Slurm's commands work.
    pub fn login(
        &self,
        session: &Session,
        words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Invocation {
        enter(session.program(words), self.init).env("SLURM_CONF", SLURM_CONF)
    }

    /// Runs a command as root on a node, the first being 1; it must succeed. Returns what it says.
    pub fn on_node(&self, node: usize, words: &[&str]) -> String {
        let pid = self.node(node).pid.to_string();
        let namespaces = ["--pid", "--net", "--mount", "--uts", "--ipc"];
        run(Command::new("nsenter").args(["--target", &pid]).args(namespaces).arg("--").args(words))
    }

    fn node(&self, node: usize) -> &Node {
        &self.nodes[node.checked_sub(1).expect("nodes are counted from 1")]
    }

    /// The processes on a node, but for its slurmd, as this process sees them.
    pub fn processes(&self, node: usize) -> Vec<u32> {
        self.node(node).processes()
    }

    /// What jobs left on the nodes, a line each: processes of anybody, mounts, files in the places
    /// that all may write to and in `/run`. Waits for processes that are about to end.
    pub fn leftovers(&self) -> Vec<String> {
        self.nodes.iter().flat_map(Node::leftovers).collect()
    }

    #[expect(clippy::print_stderr, reason = "a test that fails shows what the daemons say")]
    fn show_logs(&self) {
        let directory = format!("/proc/{}/root/run/cluster", self.init);
        let script = "tail --lines=20 node*.out *.log";
        let output = Command::new("sh").args(["-c", script]).current_dir(&directory).output();
        match output {
            Ok(output) => eprintln!("{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => eprintln!("no logs in {directory}: {error}"),
        }
    }
}

impl Node {
    /// The node of a process of the bundle, if that is a slurmd.
    fn of_daemon(pid: u32) -> Option<Self> {
        let words = fs_err::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let name = words.strip_prefix("slurmd\0-D\0-N\0")?.trim_end_matches('\0').to_owned();
        let mut node = Self { name, pid, seen: BTreeSet::new() };
        node.seen = node.picture();
        Some(node)
    }

    fn processes(&self) -> Vec<u32> {
        let network = |pid: u32| fs_err::read_link(format!("/proc/{pid}/ns/net")).ok();
        let own = network(self.pid);
        let entries = fs_err::read_dir("/proc").expect("there is /proc");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid| *pid != self.pid && own.is_some() && network(*pid) == own).collect()
    }

    fn leftovers(&self) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        let left = || end.saturating_duration_since(Instant::now());
        let mut living = self.processes();
        while living.first().is_some_and(|first| wait_gone(*first, left())) {
            living = self.processes();
        }
        let living = living.iter().map(|pid| format!("process {}", describe(*pid)));
        let picture = self.picture();
        let new = picture.difference(&self.seen).cloned();
        living.chain(new).map(|what| format!("{}: {what}", self.name)).collect()
    }

    /// Mounts and files.
    fn picture(&self) -> BTreeSet<String> {
        let process = PathBuf::from(format!("/proc/{}", self.pid));
        let mounts = fs_err::read_to_string(process.join("mountinfo")).expect("slurmd lives");
        let mut seen: BTreeSet<_> = mounts.lines().map(|line| format!("mount {line}")).collect();
        for directory in ["tmp", "var/tmp", "dev/shm", "run"] {
            let path = process.join("root").join(directory);
            let entries = fs_err::read_dir(path).expect("slurmd lives");
            seen.extend(entries.map(|entry| {
                let name = entry.expect("an entry").file_name();
                format!("file /{}", Path::new(directory).join(name).display())
            }));
        }
        seen
    }
}

/// Where instrumented programs write, on the nodes too.
fn profiles() -> Option<PathBuf> {
    let pattern = std::env::var_os("LLVM_PROFILE_FILE")?;
    Path::new(&pattern).parent().filter(|directory| directory.is_absolute()).map(Path::to_owned)
}

/// In the namespaces of a process, in the same directory.
fn enter(mut invocation: Invocation, target: u32) -> Invocation {
    let script = "exec nsenter --target \"$0\" --pid --net --mount --uts --ipc --wdns=\"$PWD\" \
                  -- \"$@\"";
    let words = ["sh", "-c", script, &target.to_string()].map(OsString::from);
    invocation.become_person.splice(0..0, words);
    invocation
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        let found = if panicking { Vec::new() } else { self.leftovers() };
        if panicking || !found.is_empty() {
            self.show_logs();
        }
        drop(self.life.take());
        if !wait_gone(self.child.id(), PATIENCE) && self.init != 0 {
            kill(self.init, Signal::KILL);
        }
        self.child.wait().expect("it is our child");
        forget_child(self.child.id());
        assert!(found.is_empty(), "left behind:\n{}", found.join("\n"));
    }
}
