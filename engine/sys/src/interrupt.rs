//! What a process does before a signal ends it.

use std::io;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::signals::{SignalMask, SignalReader, block, ignored, set_mask};

/// The signals with which terminals, shells and batch systems end a process.
const ENDING: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// While it lives, something is done before one of `SIGINT`, `SIGTERM` and `SIGHUP` ends the process; signals
/// that the process ignores, or has blocked, stay that.
#[derive(Debug)]
pub struct Interrupt {
    before: SignalMask,
    /// Closed, it ends the thread.
    ends: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Interrupt {
    /// Has `act` called by a thread of its own, once, before the signal takes its effect; another signal
    /// then does not wait. Threads that are started from now on leave these signals to it; those that
    /// were there must block them.
    ///
    /// # Errors
    ///
    /// No descriptors or no threads are left; signals end the process then as before.
    pub fn before_end(act: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let ending = ENDING.iter().fold(0, |mask, signal| mask | 1 << (signal.as_raw() - 1));
        let ending = SignalMask(ending & !ignored()?.0);
        let before = block(ending)?;
        let mut this = Self { before, ends: None, thread: None };
        let reader = SignalReader::of(SignalMask(ending.0 & !before.0))?;
        let (end, ends) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let thread = std::thread::Builder::new().name("interrupt".to_owned());
        this.ends = Some(ends);
        this.thread = Some(thread.spawn(move || watch(&reader, &end, before, act))?);
        Ok(this)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        drop(self.ends.take());
        if let Some(thread) = self.thread.take() {
            // A panic has ended the process.
            let _ended = thread.join();
        }
        let _cannot_fail = set_mask(self.before);
    }
}

fn watch(reader: &SignalReader, end: &OwnedFd, before: SignalMask, act: impl FnOnce()) {
    loop {
        let mut wanted = [PollFd::new(reader, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
        let _interrupted_or_not = poll(&mut wanted, None);
        if let Ok(Some(signal)) = reader.next() {
            // The next one has its effect at once, for who cannot wait for `act`.
            let _cannot_fail = set_mask(before);
            act();
            return end_by(signal.number);
        }
        if !wanted[1].revents().is_empty() {
            return;
        }
    }
}

/// The signal's own effect: whoever waits for the process sees it.
fn end_by(number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        let _ends_here = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Ended, Fork, exit_at_once, fork};

    /// How a process ends that gets a signal, and whether it acted before.
    fn end_of(signal: Signal, set_up: impl FnOnce()) -> (Ended, bool) {
        let (acted, acts) = rustix::pipe::pipe().unwrap();
        let Fork::Parent(child) = fork().unwrap() else {
            drop(acted);
            set_up();
            let guard = Interrupt::before_end(move || {
                let _told = rustix::io::write(&acts, b"x");
            });
            let pid = rustix::process::getpid();
            rustix::process::kill_process(pid, signal).unwrap();
            drop(guard);
            exit_at_once(3)
        };
        drop(acts);
        let ended = child.wait().unwrap();
        let mut told = [0_u8; 1];
        (ended, rustix::io::read(&acted, &mut told).unwrap() == 1)
    }

    #[test]
    fn a_signal_takes_its_effect_after_what_was_to_be_done() {
        for signal in ENDING {
            assert_eq!(end_of(signal, || ()), (Ended::Signaled(signal.as_raw()), true));
        }
    }

    #[test]
    fn a_second_signal_does_not_wait() {
        let Fork::Parent(child) = fork().unwrap() else {
            let pid = rustix::process::getpid();
            let again = move || {
                rustix::process::kill_process(pid, Signal::TERM).unwrap();
                exit_at_once(3);
            };
            let guard = Interrupt::before_end(again);
            rustix::process::kill_process(pid, Signal::INT).unwrap();
            drop(guard);
            exit_at_once(4)
        };
        assert_eq!(child.wait().unwrap(), Ended::Signaled(libc::SIGTERM));
    }

    #[test]
    fn what_is_ignored_or_blocked_stays_that() {
        assert_eq!(
            end_of(Signal::HUP, || crate::signals::ignore(&[Signal::HUP])),
            (Ended::Exited(3), false)
        );
        let block_all = || drop(crate::signals::block_all());
        assert_eq!(end_of(Signal::TERM, block_all), (Ended::Exited(3), false));
    }
}
