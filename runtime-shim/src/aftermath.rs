//! What is done when a container has ended, however it ended: nothing is left behind.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode as FileMode, OFlags, open};
use rustix::process::Pid;
use sarus_sys::process::{self, Ended, Fork, PidFd, fork};

use crate::construct::Plan;
use crate::descriptors::{duplicate, open_null};
use crate::image::release_signals;
use crate::mode::Mode;
use crate::runtime::Runtime;
use crate::scratch;
use crate::supervise::has_poststop;

/// Time for the FUSE server to end by itself after its last mount is gone.
const SERVER_ENDS_WITHIN: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// What is known of the run's surroundings.
#[derive(Debug)]
pub(crate) struct Aftermath {
    base: Option<PathBuf>,
    server: Option<i32>,
    /// User and mount namespace of the run, kept only for hooks that run after it.
    namespaces: Vec<OwnedFd>,
    keep_namespaces: bool,
    scratch: PathBuf,
}

impl Aftermath {
    pub(crate) fn new(plan: &Plan<'_>) -> Self {
        Self {
            base: None,
            server: None,
            namespaces: Vec::new(),
            keep_namespaces: has_poststop(plan),
            scratch: scratch::path(&plan.run),
        }
    }

    /// Takes the builder's report: the FUSE server's process id (0 without one), and where the
    /// run's files are.
    pub(crate) fn hear(&mut self, report: &[u8], builder: i32) -> PathBuf {
        let at = report.iter().position(|byte| *byte == b'\n').unwrap_or(0);
        let server = std::str::from_utf8(&report[..at]).ok().and_then(|text| text.parse().ok());
        self.server = server.filter(|pid| *pid > 0);
        let base = PathBuf::from(OsStr::from_bytes(report.get(at + 1..).unwrap_or_default()));
        self.base = Some(base.clone());
        if self.keep_namespaces {
            for kind in ["user", "mnt"] {
                let path = format!("/proc/{builder}/ns/{kind}");
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                self.namespaces.extend(open(path, flags, FileMode::empty()));
            }
        }
        base
    }

    /// Ends what is left of the container, runs the hooks of the stage `poststop`, and waits for
    /// the FUSE server. `ended` are processes that have been reaped already.
    pub(crate) fn clean_up(&mut self, plan: &Plan<'_>, ended: &[(i32, Ended)]) {
        self.server = self.server.filter(|pid| !ended.iter().any(|(gone, _)| gone == pid));
        self.end_children();
        if has_poststop(plan) {
            self.delete(plan);
        }
        self.namespaces.clear();
        self.await_server();
        scratch::remove(&self.scratch);
    }

    /// Kills every process that the container left, until none is; each that dies may leave its
    /// own children to us.
    fn end_children(&mut self) {
        loop {
            let Ok(children) = process::children() else { return };
            let server = self.server.and_then(Pid::from_raw);
            let left: Vec<Pid> = children.into_iter().filter(|pid| Some(*pid) != server).collect();
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _gone_already = process::kill(pid);
                let options = rustix::process::WaitOptions::empty();
                let _reaped = rustix::process::waitpid(Some(pid), options);
            }
        }
    }

    /// Has the runtime run the `poststop` hooks and forget the container, in the namespaces of the
    /// run.
    fn delete(&self, plan: &Plan<'_>) {
        let Some(base) = &self.base else { return };
        match fork() {
            Ok(Fork::Child) => {
                let own_user = usize::from(plan.run.mode == Mode::Privileged);
                for namespace in self.namespaces.iter().skip(own_user) {
                    if sarus_sys::namespace::join(namespace.as_fd()).is_err() {
                        process::exit_at_once(1);
                    }
                }
                if let Ok(null) = open_null() {
                    for target in 0..3 {
                        let _still_deletes = duplicate(&null, target);
                    }
                }
                crate::descriptors::hide(&plan.run.caller.descriptors);
                let _unblocked = release_signals();
                let arguments = plan.runtime.delete_arguments(base, &plan.id);
                let path = plan.runtime.path.as_os_str();
                let _only_on_failure = process::execute(path, &arguments, &Runtime::environment());
                process::exit_at_once(1)
            }
            Ok(Fork::Parent(child)) => match child.wait() {
                Ok(Ended::Exited(0)) => {}
                ended => log::warn!("the hooks after the container's end failed ({ended:?})"),
            },
            Err(error) => log::warn!("cannot run the hooks after the container's end: {error}"),
        }
    }

    /// The server ends when the run's mounts are gone, which is now. One that does not is killed.
    fn await_server(&mut self) {
        let Some(pid) = self.server.take().and_then(Pid::from_raw) else { return };
        if let Ok(server) = PidFd::open(pid) {
            let mut waited = [PollFd::from_borrowed_fd(server.as_fd(), PollFlags::IN)];
            let ready = poll(&mut waited, Some(&SERVER_ENDS_WITHIN));
            if !matches!(ready, Ok(1..)) {
                log::warn!("the FUSE server did not end by itself and was killed");
                let _gone_already = process::kill(pid);
            }
        }
        let options = rustix::process::WaitOptions::empty();
        let _reaped = rustix::process::waitpid(Some(pid), options);
    }
}
