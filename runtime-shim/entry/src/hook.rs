//! `sarus-entry hook NUMBER SECONDS PROGRAM [ARGUMENT...]`: a hook of the bundle, watched.
//!
//! crun starts hooks with every signal blocked, so that they and the daemons that they leave cannot be
//! ended, and does not always say which one failed, and how. So it starts this program, which starts
//! the hook with none blocked, kills it when its time is over (0: never), and writes down what becomes
//! of it ([`sarus_entry::mark`]); the shim reads it. For whoever starts it by hand it is a way to start
//! a program.

use core::ffi::CStr;

use sarus_entry::mark;

use crate::init::{EINTR, block_signals, exit_status, fork, unblock_signals};
use crate::kernel::{call, exit, number};

const STDERR: usize = 2;
const SIGKILL: usize = 9;
const SIGALRM: usize = 14;
const SIGCHLD: usize = 17;

/// Decimal digits of 32 bits, at most.
const DIGITS: usize = 10;

/// Runs the program and ends as it did; the strings are the addresses of its arguments, with its
/// name, and of its variables.
pub(crate) fn run(
    (hook, limit, program): (&CStr, &CStr, &CStr),
    [arguments, variables]: [usize; 2],
) -> ! {
    die_with_parent();
    write(&[&[mark::STARTED], hook.to_bytes(), b" ", program.to_bytes(), b"\n"]);
    // Whoever ends both reaches the hook; whoever ends this process alone would leave it unseen.
    let _can_be_killed_instead = block_signals();
    let child = match fork() {
        Ok(Some(child)) => child,
        Ok(None) => {
            die_with_parent();
            unblock_signals();
            let path = program.as_ptr().expose_provenance();
            // SAFETY: the path and the lists are the kernel's, as it started this program.
            if let Err(errno) = unsafe { call(number::EXECVE, &[path, arguments, variables]) } {
                say(mark::NOT_EXECUTED, errno);
            }
            exit(127)
        }
        Err(errno) => {
            say(mark::NOT_EXECUTED, errno);
            exit(crate::ENGINE_FAILED)
        }
    };
    let limit = limit.to_str().ok().and_then(|limit| limit.parse().ok()).unwrap_or(0);
    let (what, status) = wait(child, limit);
    say(what, status);
    exit(exit_status(status))
}

/// A runtime that is killed takes the hook along that it waits for; daemons that the hook leaves live on.
fn die_with_parent() {
    const SET_PDEATHSIG: usize = 1;
    // SAFETY: no pointers.
    let _cannot_fail = unsafe { call(number::PRCTL, &[SET_PDEATHSIG, SIGKILL]) };
}

/// Waits for the child, that many seconds, 0 for ever: whether it was killed then, as a mark, and its
/// status as wait(2) has it.
fn wait(child: usize, limit: usize) -> (u8, i32) {
    const SIGNALS: u64 = 1 << (SIGCHLD - 1) | 1 << (SIGALRM - 1);
    const NO_HANG: usize = 1;
    // struct itimerval: not again; the limit.
    let timer = [0, 0, limit, 0];
    let timer = timer.as_ptr().expose_provenance();
    // SAFETY: the structure lives until the call returns.
    let _cannot_fail = unsafe { call(number::SETITIMER, &[0, timer, 0]) };
    let signals = SIGNALS;
    let signals = (&raw const signals).expose_provenance();
    let mut status = 0_i32;
    let place = (&raw mut status).expose_provenance();
    loop {
        // SAFETY: the status lives until the call returns.
        if unsafe { call(number::WAIT4, &[child, place, NO_HANG, 0]) } == Ok(child) {
            return (mark::ENDED, status);
        }
        // SAFETY: the mask is eight bytes that live; no information is asked for.
        if unsafe { call(number::SIGTIMEDWAIT, &[signals, 0, 0, 8]) } == Ok(SIGALRM) {
            break;
        }
    }
    // SAFETY: no pointers.
    let _gone_already = unsafe { call(number::KILL, &[child, SIGKILL]) };
    // SAFETY: the status lives until the call returns.
    while unsafe { call(number::WAIT4, &[child, place, 0, 0]) } == Err(EINTR) {}
    (mark::TIMED_OUT, status)
}

/// Writes a mark and a number that is not negative.
fn say(what: u8, number: i32) {
    let mut digits = [b'0'; DIGITS];
    let mut rest = number.unsigned_abs();
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10).to_le_bytes()[0];
        rest /= 10;
    }
    write(&[&[what], &digits, b"\n"]);
}

/// Writes the parts, five at most, to the end of what hooks say.
fn write(parts: &[&[u8]]) {
    let mut vectors = [[0_usize; 2]; 5];
    for (vector, part) in vectors.iter_mut().zip(parts) {
        *vector = [part.as_ptr().expose_provenance(), part.len()];
    }
    let first = vectors.as_ptr().expose_provenance();
    // SAFETY: each vector is the address and length of a part, which lives.
    let _unheard = unsafe { call(number::WRITEV, &[STDERR, first, vectors.len()]) };
}
