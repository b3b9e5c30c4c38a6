//! `--init`: process 1 of the container, or its reaper where it shares the host's process ids.

use sarus_entry::{SOCKET, step};

use crate::kernel::{Errno, call, exit, number};
use crate::start::close;
use crate::{Block, Failure, at};

const SIGCHLD: usize = 17;
const ECHILD: Errno = 10;
pub(crate) const EINTR: Errno = 4;
/// Length of the kernel's `siginfo_t`, 128 bytes: signal, error, code, padding, process and user come
/// first.
const INFORMATION_WORDS: usize = 32;
/// Signals that the kernel raises for a fault of the init itself are not forwarded.
static ALL_SIGNALS: u64 = u64::MAX;

/// Starts the command as a child and stays: reaps what the container orphans, forwards to the command
/// the signals that reach the init alone, and ends with its exit status (128+N after a signal). Returns
/// in the child.
pub(crate) fn run_command_as_child(block: Block) -> Result<(), Failure> {
    const SET_CHILD_SUBREAPER: usize = 36;
    let failed = at(step::RESTORE);
    block_signals().map_err(&failed)?;
    // SAFETY: no pointers.
    unsafe { call(number::PRCTL, &[SET_CHILD_SUBREAPER, 1]) }.map_err(&failed)?;
    let Some(child) = fork().map_err(&failed)? else { return Ok(()) };
    close(block.size(SOCKET));
    watch(child)
}

/// Blocks all signals that can be.
pub(crate) fn block_signals() -> Result<usize, Errno> {
    set_mask(&ALL_SIGNALS)
}

/// Blocks no signal.
pub(crate) fn unblock_signals() {
    let _cannot_fail = set_mask(&0);
}

fn set_mask(mask: &u64) -> Result<usize, Errno> {
    const SIG_SETMASK: usize = 2;
    let mask = core::ptr::from_ref(mask).expose_provenance();
    // SAFETY: the mask is of eight bytes and lives.
    unsafe { call(number::SIGPROCMASK, &[SIG_SETMASK, mask, 0, 8]) }
}

/// Makes a child that the kernel kills when this process ends, and returns its id; none in the
/// child.
pub(crate) fn fork() -> Result<Option<usize>, Errno> {
    const SET_PDEATHSIG: usize = 1;
    const SIGKILL: usize = 9;
    // SAFETY: without a stack of its own and without shared memory this is fork(2).
    let child = unsafe { call(number::CLONE, &[SIGCHLD]) }?;
    if child == 0 {
        // SAFETY: no pointers.
        let _cannot_fail = unsafe { call(number::PRCTL, &[SET_PDEATHSIG, SIGKILL]) };
        return Ok(None);
    }
    Ok(Some(child))
}

/// The life of an init.
fn watch(child: usize) -> ! {
    loop {
        let all = (&raw const ALL_SIGNALS).expose_provenance();
        let mut information = [0_i32; INFORMATION_WORDS];
        let place = information.as_mut_ptr().expose_provenance();
        // SAFETY: the mask is a constant of eight bytes; the information is as long as the kernel's.
        let signal = unsafe { call(number::SIGTIMEDWAIT, &[all, place, 0, 8]) };
        match signal {
            Ok(SIGCHLD) => {
                if let Some(status) = reap(child) {
                    exit(status);
                }
            }
            Ok(signal) if is_for_init_alone(signal, &information) => {
                // SAFETY: no pointers.
                let _gone_already = unsafe { call(number::KILL, &[child, signal]) };
            }
            Ok(_) | Err(EINTR) => {}
            Err(_) => exit(crate::ENGINE_FAILED),
        }
    }
}

/// Whether a signal reached the init and not the command as well: to be forwarded, then.
///
/// The supervisor sends to all of the group, or marks what it sends to one process (`PidFd::queue`).
/// What another user sends, the launcher's root, is for every process of the tree; a terminal's key
/// is for the group.
fn is_for_init_alone(signal: usize, information: &[i32; INFORMATION_WORDS]) -> bool {
    const SIGHUP: usize = 1;
    const SI_QUEUE: i32 = -1;
    const SI_KERNEL: i32 = 0x80;
    let [_, _, code, _, sender, user, ..] = *information;
    // SAFETY: no pointers.
    let number = |number| unsafe { call(number, &[]) }.ok().and_then(|id| i32::try_from(id).ok());
    match code {
        SI_QUEUE => true,
        // The end of a terminal is told to a session's first process.
        SI_KERNEL => signal == SIGHUP,
        _ => Some(sender) != number(number::GETPPID) && Some(user) == number(number::GETUID),
    }
}

/// Reaps all that has ended; the exit status to end with, when the command is among them.
fn reap(child: usize) -> Option<i32> {
    const NO_HANG: usize = 1;
    let mut ended = None;
    loop {
        let mut status = 0_i32;
        let place = (&raw mut status).expose_provenance();
        // SAFETY: the status lives until the call returns.
        let reaped = unsafe { call(number::WAIT4, &[usize::MAX, place, NO_HANG, 0]) };
        match reaped {
            Ok(0) | Err(ECHILD) => return ended,
            Ok(process) if process == child => ended = Some(exit_status(status)),
            Ok(_) | Err(_) => {}
        }
    }
}

/// The convention of shells: a signal is 128 and its number.
pub(crate) fn exit_status(status: i32) -> i32 {
    match status & 0x7f {
        0 => (status >> 8) & 0xff,
        signal => 128 + signal,
    }
}
