//! What is done when a container has ended, however it ended: nothing is left behind.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use sarus_config::hooks::Hook;
use sarus_sys::process::{self, PidFd};
use sarus_sys::scratch::Scratch;

use crate::image::Server;
use crate::janitor::Janitor;
use crate::setup::Membership;

/// Time for the FUSE server to end by itself after its last mount is gone.
const SERVER_ENDS_WITHIN: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// What is to be given back.
#[derive(Debug, Default)]
pub(crate) struct Aftermath {
    /// Runs the hooks at the end.
    pub(crate) janitor: Option<Janitor>,
    /// The FUSE server that serves the image, whoever started it.
    pub(crate) server: Option<Server>,
    /// What is shared with other runs.
    pub(crate) membership: Option<Membership>,
    /// Directories on disk.
    pub(crate) scratch: Vec<Scratch>,
    /// Children that others made, each with its start: they are left alone.
    pub(crate) spared: Vec<(Pid, Option<u64>)>,
}

impl Aftermath {
    /// Ends what is left of the container, has the hooks of the stage `poststop` run, leaves the
    /// other runs, and, when nobody uses the image any more, waits until its server is gone.
    pub(crate) fn clean_up(self, hooks: &[Hook]) {
        let server = self.server.and_then(|server| Pid::from_raw(server.pid));
        let is_alive =
            |(pid, started): &(Pid, Option<u64>)| process::start_time(pid.as_raw_pid()) == *started;
        let others = self.spared.into_iter().filter(is_alive).map(|(pid, _)| pid);
        let janitor = self.janitor.as_ref().map(Janitor::pid);
        end_children(&server.into_iter().chain(janitor).chain(others).collect::<Vec<_>>());
        if let Some(janitor) = self.janitor {
            janitor.finish(hooks);
        }
        let is_last = match self.membership {
            Some(membership) => membership.leave(),
            // A run that joins nobody has its server to itself. One that failed on the way may
            // have left a file in which nobody has a place.
            None => {
                sarus_sys::rendezvous::sweep();
                true
            }
        };
        if let (Some(server), true) = (self.server, is_last) {
            await_server(server);
        }
        drop(self.scratch);
    }
}

/// Kills every process that the container left, until none is; each that dies may leave its own
/// children to us.
fn end_children(spared: &[Pid]) {
    loop {
        let Ok(children) = process::children() else { return };
        let left: Vec<Pid> = children.into_iter().filter(|pid| !spared.contains(pid)).collect();
        if left.is_empty() {
            return;
        }
        for pid in left {
            // One of root's, which a setuid program made, is on its way out and waited for.
            let _gone_already = process::kill(pid);
            let options = rustix::process::WaitOptions::empty();
            let _reaped = rustix::process::waitpid(Some(pid), options);
        }
    }
}

/// The server ends when the last mount is gone, which is now. One that does not is killed.
fn await_server(server: Server) {
    let Some(pid) = Pid::from_raw(server.pid) else { return };
    let Ok(process) = PidFd::open(pid) else { return };
    if !process::runs(server.pid, server.started) {
        return;
    }
    let mut waited = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    if !matches!(poll(&mut waited, Some(&SERVER_ENDS_WITHIN)), Ok(1..)) {
        log::warn!("the FUSE server did not end by itself and was killed");
        let _gone_already = process.signal(libc::SIGKILL);
    }
    let options = rustix::process::WaitOptions::NOHANG;
    let _somebody_elses = rustix::process::waitpid(Some(pid), options);
}
