//! From the block to the user's command.

use core::convert::Infallible;

use sarus_entry::{
    AFFINITY, ARGUMENTS, CLOSE, ENVIRONMENT, FLAGS, IGNORED_SIGNALS, LIMITS, LIMITS_COUNT, MOVES,
    SEARCH_PATH, SECCOMP, SIGNAL_MASK, SOCKET, STDIO, UMASK, USER_NAMESPACE, flag, message, step,
};

use crate::kernel::{Errno, call, exit, number};
use crate::{Block, Failure, at, init, terminal};

const ENOENT: Errno = 2;
const ENOTDIR: Errno = 20;
const AT_FDCWD: usize = (-100_isize).cast_unsigned();

/// Longest path tried in the search for the program; the kernel's own limit.
const PATH_MAX: usize = 4096;

/// Does all that comes before the user's command, and executes it.
pub(crate) fn start(block: Block) -> Result<Infallible, Failure> {
    let socket = block.size(SOCKET);
    close_on_exec(socket);
    let master = if has(block, flag::TERMINAL) { Some(terminal::make()?) } else { None };
    send(socket, &[message::READY], master).map_err(at(step::BLOCK))?;
    if let Some(master) = master {
        close(master);
    }
    await_go(socket);
    restore(block)?;
    if has(block, flag::JOIN_USER_NAMESPACE) {
        // SAFETY: no pointers.
        unsafe { call(number::SETNS, &[block.size(USER_NAMESPACE), CLONE_NEWUSER]) }
            .map_err(at(step::USER_NAMESPACE))?;
    }
    give_up_privileges()?;
    close_plugs(block);
    // Also for an init: the command could else make it do by ptrace(2) what it may not do itself.
    load_filters(block)?;
    if has(block, flag::INIT) {
        init::run_command_as_child(block)?;
    }
    execute(block)
}

const CLONE_NEWUSER: usize = 0x1000_0000;

fn has(block: Block, flag: u64) -> bool {
    block.word(FLAGS) & flag != 0
}

/// Waits until the runtime is done. When the shim is gone instead, nothing is to be run.
fn await_go(socket: usize) {
    let mut packet = [0_u8; 8];
    // SAFETY: the buffer is as long as said.
    let received = unsafe {
        call(number::RECVFROM, &[socket, packet.as_mut_ptr().expose_provenance(), packet.len()])
    };
    if received != Ok(1) || packet[0] != message::GO {
        exit(crate::ENGINE_FAILED);
    }
}

/// Sends one packet, with a descriptor if one is given.
pub(crate) fn send(
    socket: usize,
    packet: &[u8],
    descriptor: Option<usize>,
) -> Result<usize, Errno> {
    const NO_SIGNAL: usize = 0x4000;
    /// `cmsghdr` and one descriptor: length, level `SOL_SOCKET` and type `SCM_RIGHTS`, descriptor.
    const CONTROL_SIZE: usize = 20;
    let control =
        [CONTROL_SIZE as u64, 1 | (1 << 32), descriptor.map_or(0, |number| number as u64)];
    let vector = [packet.as_ptr().expose_provenance(), packet.len()];
    // struct msghdr: name, its length, vector, its length, control, its length, flags
    let with_control = descriptor.is_some();
    let header = [
        0,
        0,
        vector.as_ptr().expose_provenance(),
        1,
        if with_control { control.as_ptr().expose_provenance() } else { 0 },
        if with_control { CONTROL_SIZE } else { 0 },
        0,
    ];
    // SAFETY: all that the header points to lives until the call returns.
    unsafe { call(number::SENDMSG, &[socket, header.as_ptr().expose_provenance(), NO_SIGNAL]) }
}

/// Puts back what the runtime changed: descriptors, limits, CPU mask, umask.
fn restore(block: Block) -> Result<(), Failure> {
    let first = block.array(MOVES);
    for index in 0..block.size(MOVES + 1) {
        // Before the limits: the caller may have one above its soft limit.
        let (from, to) = (block.size(first + 2 * index), block.size(first + 2 * index + 1));
        replace(from, to).map_err(at(step::RESTORE))?;
    }
    if !has(block, flag::TERMINAL) {
        for target in 0..3 {
            replace(block.size(STDIO + target), target).map_err(at(step::RESTORE))?;
        }
    }
    for resource in 0..LIMITS_COUNT {
        let pair = block.address(block.size(LIMITS) + resource * 16);
        // A hard limit that the runtime left alone can always be set again; one that it lowered
        // cannot, and then the lower one is what the site's runtime wants.
        // SAFETY: the pair lies in the block.
        let _kept = unsafe { call(number::PRLIMIT64, &[0, resource, pair, 0]) };
    }
    let (mask, size) = (block.address(block.size(AFFINITY)), block.size(AFFINITY + 1));
    if size > 0 {
        // SAFETY: the mask lies in the block and is as long as said.
        unsafe { call(number::SCHED_SETAFFINITY, &[0, size, mask]) }.map_err(at(step::RESTORE))?;
    }
    // SAFETY: no pointers.
    let _always_succeeds = unsafe { call(number::UMASK, &[block.size(UMASK)]) };
    Ok(())
}

/// No capability, in no set, and none to be gained; killed when the shim is killed.
///
/// After the user namespace was joined the process has all capabilities in it: the bounding set
/// goes first, while it may still be changed, and `execve(2)` by a user other than 0, or with an
/// empty bounding set, drops the rest.
fn give_up_privileges() -> Result<(), Failure> {
    const SET_PDEATHSIG: usize = 1;
    const CAPBSET_READ: usize = 23;
    const CAPBSET_DROP: usize = 24;
    const SET_NO_NEW_PRIVS: usize = 38;
    const SIGKILL: usize = 9;
    let failed = at(step::PRIVILEGES);
    let prctl = |arguments: &[usize]| {
        // SAFETY: these options take no pointers.
        unsafe { call(number::PRCTL, arguments) }
    };
    for capability in 0..64 {
        match prctl(&[CAPBSET_READ, capability]) {
            Ok(0) => {}
            Ok(_) => drop(prctl(&[CAPBSET_DROP, capability]).map_err(&failed)?),
            Err(_beyond_the_last) => break,
        }
    }
    prctl(&[SET_NO_NEW_PRIVS, 1]).map_err(&failed)?;
    prctl(&[SET_PDEATHSIG, SIGKILL]).map_err(&failed)?;
    Ok(())
}

fn close_plugs(block: Block) {
    let first = block.array(CLOSE);
    for index in first..first + block.size(CLOSE + 1) {
        // The socket goes with `execve(2)`: until then it is to carry the news that it failed.
        if block.size(index) != block.size(SOCKET) {
            close(block.size(index));
        }
    }
}

/// Hands the seccomp filters to the kernel. What this process still does after that is `execve(2)`
/// and its report of a failure; `no_new_privs` is set.
fn load_filters(block: Block) -> Result<(), Failure> {
    const SET_MODE_FILTER: usize = 1;
    let mut index = block.array(SECCOMP);
    for _ in 0..block.size(SECCOMP + 1) {
        let (flags, count) = (block.size(index), block.size(index + 1));
        // struct sock_fprog: a count of 16 bits, padding, a pointer.
        let program = [count, block.address((index + 2) * 8)];
        let program = program.as_ptr().expose_provenance();
        // SAFETY: the instructions lie in the block; the structure lives until the call returns.
        unsafe { call(number::SECCOMP, &[SET_MODE_FILTER, flags, program]) }
            .map_err(at(step::SECCOMP))?;
        index += 2 + count;
    }
    Ok(())
}

/// Closes a descriptor that may be closed already.
pub(crate) fn close(descriptor: usize) {
    // SAFETY: no pointers.
    let _closed = unsafe { call(number::CLOSE, &[descriptor]) };
}

/// Makes `target` the same open file as `source`.
pub(crate) fn replace(source: usize, target: usize) -> Result<usize, Errno> {
    if source == target {
        return Ok(target);
    }
    // SAFETY: no pointers.
    unsafe { call(number::DUP3, &[source, target, 0]) }
}

fn close_on_exec(descriptor: usize) {
    const F_SETFD: usize = 2;
    const FD_CLOEXEC: usize = 1;
    // SAFETY: no pointers.
    let _cannot_fail = unsafe { call(number::FCNTL, &[descriptor, F_SETFD, FD_CLOEXEC]) };
}

/// Restores what the caller ignores (`nohup` does) and blocks of signals.
fn restore_signals(block: Block) {
    const SIG_SETMASK: usize = 2;
    const SIG_IGN: usize = 1;
    // struct sigaction of the kernel: the handler first, and nothing else.
    let ignore = [SIG_IGN, 0, 0, 0];
    let ignored = block.word(IGNORED_SIGNALS);
    for signal in (1..=64_usize).filter(|signal| ignored >> (signal - 1) & 1 == 1) {
        let action = ignore.as_ptr().expose_provenance();
        // SAFETY: the structure is as long as the kernel's, and lives.
        let _cannot_be_ignored = unsafe { call(number::SIGACTION, &[signal, action, 0, 8]) };
    }
    // SAFETY: the mask lies in the block and has eight bytes.
    let _cannot_fail =
        unsafe { call(number::SIGPROCMASK, &[SIG_SETMASK, block.address(SIGNAL_MASK * 8), 0, 8]) };
}

/// Executes the command: as it is when it has a `/`, else from the search path.
pub(crate) fn execute(block: Block) -> Result<Infallible, Failure> {
    restore_signals(block);
    let arguments = block.pointers(ARGUMENTS);
    let environment = block.pointers(ENVIRONMENT);
    let program = block.size(block.array(ARGUMENTS));
    let name = text(program);
    if name.contains(&b'/') {
        return Err(why_not(program, execve(program, arguments, environment)));
    }
    let mut refused = None;
    let first = block.array(SEARCH_PATH);
    for index in first.. {
        let directory = block.size(index);
        if directory == 0 || name.is_empty() {
            break;
        }
        let mut path = [0_u8; PATH_MAX];
        if !join(&mut path, text(block.address(directory)), name) {
            continue;
        }
        let candidate = path.as_ptr().expose_provenance();
        match execve(candidate, arguments, environment) {
            ENOENT | ENOTDIR if !exists(candidate) => {}
            errno => refused = refused.or(Some(why_not(candidate, errno))),
        }
    }
    Err(refused.unwrap_or(Failure(step::NOT_FOUND, ENOENT)))
}

/// Returns only the error number: success does not return.
fn execve(path: usize, arguments: usize, environment: usize) -> Errno {
    // SAFETY: path and lists are closed as execve(2) wants them.
    unsafe { call(number::EXECVE, &[path, arguments, environment]) }.err().unwrap_or(0)
}

fn why_not(path: usize, errno: Errno) -> Failure {
    match errno {
        ENOENT if exists(path) => Failure(step::NO_INTERPRETER, errno),
        ENOENT | ENOTDIR => Failure(step::NOT_FOUND, errno),
        _ => Failure(step::CANNOT_EXECUTE, errno),
    }
}

fn exists(path: usize) -> bool {
    // SAFETY: the path is closed by a NUL byte.
    unsafe { call(number::FACCESSAT, &[AT_FDCWD, path, 0]) }.is_ok()
}

/// The bytes before the NUL at `address`.
fn text(address: usize) -> &'static [u8] {
    let start = core::ptr::with_exposed_provenance(address);
    // SAFETY: every string of the block is closed by a NUL byte, and the block is never unmapped.
    unsafe { core::ffi::CStr::from_ptr(start) }.to_bytes()
}

/// Writes `directory` and `name` behind each other; the rest of `path` is zero. False when it
/// does not fit.
fn join(path: &mut [u8; PATH_MAX], directory: &[u8], name: &[u8]) -> bool {
    let whole = directory.len() + name.len();
    if whole >= PATH_MAX {
        return false;
    }
    path[..directory.len()].copy_from_slice(directory);
    path[directory.len()..whole].copy_from_slice(name);
    true
}
