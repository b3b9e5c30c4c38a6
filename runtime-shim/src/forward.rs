//! Signals reach the command once, whether the launcher signals one process or the whole tree.
//!
//! Who signals every process of the tree (Slurm does) reaches the command without help; who signals
//! the process that it started reaches the supervisor only. The two are told apart by a third
//! process, the sentinel, which has a session of its own and nothing to do: it is reached by the
//! former only. What reaches both is not forwarded.
//!
//! The sentinel also outlives a supervisor that is killed, and ends what that one supervised.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::process::Pid;
use sarus_sys::process::{self, Fork, PidFd, fork};
use sarus_sys::signals::SignalReader;

use crate::error::{ShimError, cannot};

/// Time within which one launcher's signals reach all processes of the tree.
const WITHIN: Duration = Duration::from_millis(100);

/// Times that the sentinel looks for what a killed supervisor left.
const SWEEPS_MAX: usize = 64;

/// What a supervisor that is killed leaves, besides processes of its container.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Directories in which its own may be.
    pub(crate) scratch: Vec<PathBuf>,
    /// The leader of the session of a program in another run's container.
    pub(crate) session: Option<i32>,
}

/// Decides what is forwarded.
#[derive(Debug)]
pub(crate) struct Forwarder {
    sentinel: Option<Sentinel>,
    /// Signals that reached the supervisor, and when they are to be forwarded.
    waiting: BTreeMap<i32, Instant>,
    /// Signals that reached the sentinel, and until when the same at the supervisor is the same.
    elsewhere: BTreeMap<i32, Instant>,
}

#[derive(Debug)]
struct Sentinel {
    pid: i32,
    socket: OwnedFd,
}

impl Forwarder {
    /// Starts the sentinel, which ends and removes what a killed supervisor left.
    pub(crate) fn start(left: &Left) -> Result<Self, ShimError> {
        let failed = cannot("start the process that notices signals");
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(|e| failed(e.into()))?;
        let supervisor = rustix::process::getpid();
        let sentinel = match fork() {
            Ok(Fork::Child) => {
                drop(ours);
                let watched = keep_watch((supervisor, &theirs), left);
                process::exit_at_once(i32::from(watched.is_err()))
            }
            Ok(Fork::Parent(child)) => Some(Sentinel { pid: child.as_raw_pid(), socket: ours }),
            // A limit on processes is no reason not to run.
            Err(error) => {
                log::info!("every signal is forwarded: {}", failed(error));
                None
            }
        };
        Ok(Self { sentinel, waiting: BTreeMap::new(), elsewhere: BTreeMap::new() })
    }

    /// What to wait for, besides the signals themselves.
    pub(crate) fn interest(&self) -> Option<BorrowedFd<'_>> {
        self.sentinel.as_ref().map(|sentinel| sentinel.socket.as_fd())
    }

    /// How long to wait at most.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        let first = self.waiting.values().min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    /// Takes note of a signal of another process at the supervisor. True if it is to be forwarded at
    /// once.
    pub(crate) fn receive(&mut self, signal: i32) -> bool {
        if self.sentinel.is_none() {
            return true;
        }
        let now = Instant::now();
        match self.elsewhere.remove(&signal) {
            Some(until) if until >= now => {}
            _ => drop(self.waiting.insert(signal, now + WITHIN)),
        }
        false
    }

    /// Hears the sentinel, and returns what is to be forwarded now.
    pub(crate) fn due(&mut self) -> Vec<i32> {
        let now = Instant::now();
        let mut packet = [0_u8; 64];
        while let Some(sentinel) = &self.sentinel {
            let flags = rustix::net::RecvFlags::DONTWAIT;
            match rustix::net::recv(&sentinel.socket, &mut packet, flags) {
                Ok((_, size @ 1..)) => {
                    for signal in packet[..size].iter().map(|signal| i32::from(*signal)) {
                        if self.waiting.remove(&signal).is_none() {
                            self.elsewhere.insert(signal, now + WITHIN);
                        }
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                // It is gone: from now on everything is forwarded.
                _ => self.sentinel = None,
            }
        }
        let is_due = |(signal, at): (&i32, &Instant)| (*at <= now).then_some(*signal);
        let due: Vec<i32> = self.waiting.iter().filter_map(is_due).collect();
        for signal in &due {
            self.waiting.remove(signal);
        }
        due
    }

    /// Ends the sentinel; its process is for the caller to reap.
    pub(crate) fn stop(&mut self) {
        if let Some(sentinel) = self.sentinel.take()
            && let Some(pid) = rustix::process::Pid::from_raw(sentinel.pid)
        {
            let _gone_already = process::kill(pid);
        }
    }
}

/// The life of the sentinel: it reports the signals that reach it, and, when the supervisor is gone,
/// ends what that one left.
fn keep_watch((parent, supervisor): (Pid, &OwnedFd), left: &Left) -> Result<(), ShimError> {
    let failed = cannot("watch");
    rustix::process::setsid().map_err(|e| failed(e.into()))?;
    sarus_sys::process::close_all_but(supervisor.as_fd());
    // Its end of the socket is closed before it has ended for the kernel.
    let end = PidFd::open(parent);
    // It was the supervisor that was opened if that one is the parent still: else it was killed.
    let is_alive = rustix::process::getppid() == Some(parent);
    let end = match end {
        Ok(end) if is_alive => end,
        Err(error) if is_alive => return Err(failed(error)),
        _ => {
            left.sweep();
            return Ok(());
        }
    };
    let signals = SignalReader::open().map_err(&failed)?;
    loop {
        let mut waited = [
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(end.as_fd(), PollFlags::IN),
        ];
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
        if !waited[1].revents().is_empty() {
            left.sweep();
            return Ok(());
        }
        while let Some(signal) = signals.next().map_err(&failed)? {
            if let Ok(number) = u8::try_from(signal.number) {
                let _supervisor_is_gone = send(supervisor, &[number], SendFlags::NOSIGNAL);
            }
        }
    }
}

impl Left {
    /// Ends and removes it.
    fn sweep(&self) {
        // What forks while it is looked at is found by the next look.
        (0..SWEEPS_MAX).take_while(|_| sarus_sys::orphans::sweep() > 0).for_each(drop);
        if let Some(leader) = self.session {
            let end = |_: &usize| sarus_sys::orphans::end_session(leader) > 0;
            (0..SWEEPS_MAX).take_while(end).for_each(drop);
        }
        sarus_sys::rendezvous::sweep();
        for parent in &self.scratch {
            sarus_sys::scratch::sweep(parent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarder() -> (Forwarder, OwnedFd) {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let sentinel = Some(Sentinel { pid: i32::MAX, socket: ours });
        let (waiting, elsewhere) = (BTreeMap::new(), BTreeMap::new());
        (Forwarder { sentinel, waiting, elsewhere }, theirs)
    }

    #[test]
    fn what_reaches_both_is_not_forwarded_in_either_order() {
        let (mut forwarder, sentinel) = forwarder();
        assert!(!forwarder.receive(15));
        send(&sentinel, &[15], SendFlags::empty()).unwrap();
        assert!(forwarder.due().is_empty());
        assert_eq!(forwarder.timeout(), None);
        send(&sentinel, &[10], SendFlags::empty()).unwrap();
        assert!(forwarder.due().is_empty());
        assert!(!forwarder.receive(10));
        assert_eq!(forwarder.timeout(), None);
    }

    #[test]
    fn what_reaches_the_supervisor_alone_is_forwarded_after_a_while() {
        let (mut forwarder, _sentinel) = forwarder();
        assert!(!forwarder.receive(15));
        assert!(forwarder.timeout().is_some_and(|left| left <= WITHIN));
        assert!(forwarder.due().is_empty());
        forwarder.waiting.insert(15, Instant::now());
        assert_eq!(forwarder.due(), [15]);
        assert_eq!(forwarder.timeout(), None);
    }

    #[test]
    fn a_signal_without_a_sentinel_is_forwarded_at_once() {
        let (mut forwarder, sentinel) = forwarder();
        drop(sentinel);
        assert!(forwarder.due().is_empty());
        assert!(forwarder.receive(15));
    }
}
