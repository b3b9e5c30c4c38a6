//! The pseudo-terminal: made inside the container, from its own `/dev/pts`.
//!
//! Made here and not by the runtime, so that it is the same under each of them.

use sarus_entry::step;

use crate::kernel::{call, number};
use crate::start::{close, replace};
use crate::{Failure, at};

const AT_FDCWD: usize = (-100_isize).cast_unsigned();
const READ_WRITE: usize = 2;
const NOCTTY: usize = 0o400;
const CLOEXEC: usize = 0o2_000_000;

const TIOCSPTLCK: usize = 0x4004_5431;
const TIOCGPTPEER: usize = 0x5441;
const TIOCSCTTY: usize = 0x540e;

/// Makes the terminal, makes it the controlling one and 0, 1 and 2, and returns the descriptor of
/// its master.
pub(crate) fn make() -> Result<usize, Failure> {
    let failed = at(step::TERMINAL);
    let path = c"/dev/pts/ptmx".as_ptr().expose_provenance();
    let unlock = 0_i32;
    let unlock = (&raw const unlock).expose_provenance();
    let flags = READ_WRITE | NOCTTY | CLOEXEC;
    // SAFETY: the path is a constant, closed by a NUL byte.
    let master = unsafe { call(number::OPENAT, &[AT_FDCWD, path, flags]) }.map_err(&failed)?;
    // SAFETY: the pointer is to an int that lives until the call returns.
    unsafe { call(number::IOCTL, &[master, TIOCSPTLCK, unlock]) }.map_err(&failed)?;
    // SAFETY: no pointers.
    let slave = unsafe { call(number::IOCTL, &[master, TIOCGPTPEER, READ_WRITE | NOCTTY]) }
        .map_err(&failed)?;
    // Both runtimes have made a session already; then this says EPERM.
    // SAFETY: no pointers.
    let _already_leader = unsafe { call(number::SETSID, &[]) };
    // SAFETY: no pointers.
    unsafe { call(number::IOCTL, &[slave, TIOCSCTTY, 0]) }.map_err(&failed)?;
    for target in 0..3 {
        replace(slave, target).map_err(&failed)?;
    }
    if slave > 2 {
        close(slave);
    }
    Ok(master)
}
