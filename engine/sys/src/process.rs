//! Processes: fork, execute, wait, and who is who.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, pidfd_open};

/// Which side of a fork one is on.
#[derive(Debug)]
pub enum Fork {
    /// In the parent, with the child.
    Parent(Child),
    /// In the child.
    Child,
}

/// A child process that has not been waited for.
#[derive(Debug)]
pub struct Child(Pid);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit status.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

impl Ended {
    /// The status that a shell gives: 128 and the signal's number after a signal.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }

    fn from_wait(status: WaitStatus) -> Option<Self> {
        let exited = status.exit_status().map(Self::Exited);
        exited.or(status.terminating_signal().map(Self::Signaled))
    }
}

/// Forks. The caller must have one thread only: the child gets a copy of every lock as it is.
///
/// # Errors
///
/// `EAGAIN` where a limit on processes is reached.
#[expect(unsafe_code, reason = "fork(2)")]
pub fn fork() -> io::Result<Fork> {
    // SAFETY: the callers are the shim, which starts no thread, and tests that execute at once;
    // so no other thread can hold a lock that the child needs.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        child if child > 0 => {
            let pid = Pid::from_raw(child).ok_or_else(io::Error::last_os_error)?;
            Ok(Fork::Parent(Child(pid)))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process without running destructors or flushing buffers, as a forked child should.
#[expect(unsafe_code, reason = "_exit(2)")]
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: no argument but the code.
    unsafe { libc::_exit(code) }
}

impl Child {
    /// The process id.
    pub fn pid(&self) -> Pid {
        self.0
    }

    /// The process id as a number.
    pub fn as_raw_pid(&self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    ///
    /// `ECHILD` if somebody else has reaped it.
    pub fn wait(self) -> io::Result<Ended> {
        loop {
            match rustix::process::waitpid(Some(self.0), WaitOptions::empty()) {
                Ok(Some((_, status))) => {
                    if let Some(ended) = Ended::from_wait(status) {
                        return Ok(ended);
                    }
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reaps one child that has ended, if there is one.
///
/// # Errors
///
/// `ECHILD` if there is no child at all.
pub fn reap_any() -> io::Result<Option<(Pid, Ended)>> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if let Some(ended) = Ended::from_wait(status) {
                    return Ok(Some((pid, ended)));
                }
            }
            Ok(None) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs `work` with a stack of so many bytes, whatever the caller's limit on stacks (`RLIMIT_STACK`) is: on
/// a thread of its own where that is too small. Without threads it is tried all the same.
pub fn with_stack<T: Send>(bytes: usize, work: impl Fn() -> T + Sync) -> T {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Stack).current;
    if limit.is_none_or(|limit| limit >= bytes as u64) {
        return work();
    }
    let done = std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().stack_size(bytes).spawn_scoped(scope, &work).ok()?;
        Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    done.unwrap_or_else(work)
}

/// A descriptor for a process: it stays that process's, whoever gets the number later.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process with that number, whatever the number is.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is no such process.
    pub fn of(pid: i32) -> io::Result<Self> {
        let pid = if pid > 0 { Pid::from_raw(pid) } else { None };
        Self::open(pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?)
    }

    /// # Errors
    ///
    /// `ESRCH` if there is no such process.
    pub fn open(pid: Pid) -> io::Result<Self> {
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Whether the process has ended, reaped or not.
    ///
    /// # Errors
    ///
    /// As `poll(2)`.
    pub fn has_ended(&self) -> io::Result<bool> {
        let mut waited = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut waited, Some(&now))? > 0)
    }

    /// Sends a signal by number, real-time signals included.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the process has been reaped; `EPERM` if it is not the caller's to signal.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        self.send(number, std::ptr::null())
    }

    /// [`PidFd::signal`], marked with `SI_QUEUE` as `sigqueue(3)` does: so that an init can tell it from
    /// one that its command gets as well.
    ///
    /// # Errors
    ///
    /// As [`PidFd::signal`]; `EAGAIN` at the limit on pending signals.
    pub fn queue(&self, number: i32) -> io::Result<()> {
        // siginfo_t: signal, error, code, padding, process, user; the rest is zero.
        let mut information = [0_i32; size_of::<libc::siginfo_t>() / size_of::<i32>()];
        information[0] = number;
        information[2] = libc::SI_QUEUE;
        information[4] = rustix::process::getpid().as_raw_nonzero().get();
        information[5] = rustix::process::getuid().as_raw().cast_signed();
        self.send(number, information.as_ptr())
    }

    #[expect(unsafe_code, reason = "real-time signals have no safe type")]
    fn send(&self, number: i32, information: *const i32) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        // SAFETY: the information is null or as long as the kernel's structure, and a wrong number is
        // refused by the kernel.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, information, 0)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Sends a signal by number to the process group that `pid`, a child that is not reaped, is of.
///
/// False, and nothing is sent, when that is the caller's own group.
///
/// # Errors
///
/// `ESRCH` if there is no such process; `EPERM` if none of the group is the caller's to signal.
#[expect(unsafe_code, reason = "real-time signals have no safe type")]
pub fn signal_group(pid: i32, number: i32) -> io::Result<bool> {
    let group = rustix::process::getpgid(Pid::from_raw(pid))?;
    if group == rustix::process::getpgrp() {
        return Ok(false);
    }
    // SAFETY: no pointers; a wrong number is refused by the kernel.
    let result = unsafe { libc::kill(-group.as_raw_nonzero().get(), number) };
    if result == 0 { Ok(true) } else { Err(io::Error::last_os_error()) }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Ends a process that cannot be asked.
///
/// # Errors
///
/// `ESRCH` if there is none.
pub fn kill(pid: Pid) -> io::Result<()> {
    Ok(rustix::process::kill_process(pid, Signal::KILL)?)
}

/// The children of the calling thread, from `/proc`.
///
/// # Errors
///
/// `ENOENT` where the kernel was built without `CONFIG_PROC_CHILDREN`.
pub fn children() -> io::Result<Vec<Pid>> {
    let mut text = String::new();
    let mut file = std::fs::File::open("/proc/thread-self/children")?;
    io::Read::read_to_string(&mut file, &mut text)?;
    let pids = text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    Ok(pids.filter_map(Pid::from_raw).collect())
}

/// When a process started, in clock ticks since boot: with the id it names a process for good,
/// until the next boot. None if there is no such process.
pub fn start_time(pid: i32) -> Option<u64> {
    stat_field(pid, 22)
}

/// Whether the process that started at that time still runs: one that has ended and waits to be
/// reaped does not.
pub fn runs(pid: i32, started: u64) -> bool {
    let state: Option<char> = stat_field(pid, 3);
    start_time(pid) == Some(started) && !matches!(state, Some('Z' | 'X') | None)
}

/// Whether the process is stopped, by a signal or a debugger.
pub fn is_stopped(pid: i32) -> bool {
    matches!(stat_field(pid, 3), Some('T' | 't'))
}

/// The session of a process, as its leader's id. None if there is no such process.
pub fn session_of(pid: i32) -> Option<i32> {
    stat_field(pid, 6)
}

/// Kills a process and all below it, where it has not ended yet, and waits until it has.
///
/// It is stopped first, so that it starts none that would not be found.
///
/// # Errors
///
/// `EPERM` where it is another user's.
pub fn kill_tree(process: &PidFd, pid: i32) -> io::Result<()> {
    match process.signal(libc::SIGSTOP) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        stopped => stopped?,
    }
    kill_below(process, pid);
    process.signal(libc::SIGKILL)?;
    let mut ended = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    while poll(&mut ended, None) == Err(rustix::io::Errno::INTR) {}
    Ok(())
}

fn kill_below(process: &PidFd, pid: i32) {
    let children: Vec<(PidFd, i32)> = children_of(pid)
        .into_iter()
        // The descriptor comes before the look at the parent, so that it is of the child.
        .filter_map(|child| Some((PidFd::of(child).ok()?, child)))
        .filter(|(_, child)| parent(*child) == Some(pid))
        .collect();
    // While it had not ended the number was its own; what has ended has no children.
    if process.has_ended().unwrap_or(true) {
        return;
    }
    for (child, pid) in children {
        let _gone_already = child.signal(libc::SIGSTOP);
        kill_below(&child, pid);
        let _gone_already = child.signal(libc::SIGKILL);
    }
}

/// The children of all threads of a process: `proc_pid_task_tid_children(5)`.
fn children_of(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    let mut text = String::new();
    for thread in threads.map_while(Result::ok) {
        // A thread that ends has none any more.
        if let Ok(mut file) = std::fs::File::open(thread.path().join("children")) {
            let _gone_already = io::Read::read_to_string(&mut file, &mut text);
        }
        text.push(' ');
    }
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// The parent of a process. None if there is no such process.
pub fn parent(pid: i32) -> Option<i32> {
    stat_field(pid, 4)
}

/// The session of the calling process: its leader's id, or 0 where the leader is in a process
/// namespace above, as it is where a container or a launcher made one without `setsid(2)`.
///
/// # Errors
///
/// Without `/proc`.
pub fn own_session() -> io::Result<i32> {
    // Not by getsid(2): what wraps it takes 0 for impossible.
    stat_field(std::process::id().cast_signed(), 6)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

/// A field of `proc_pid_stat(5)`, counted from 1 as there; behind the second, which is the name.
fn stat_field<T: std::str::FromStr>(pid: i32, field: usize) -> Option<T> {
    let mut text = Vec::new();
    let mut file = std::fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    io::Read::read_to_end(&mut file, &mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name, in parentheses, may contain anything.
    text.rsplit_once(')')?.1.split_ascii_whitespace().nth(field - 3)?.parse().ok()
}

/// Replaces the program by the file at `path`. Returns only on failure.
///
/// Descriptors that are not close-on-exec, the signal mask and all else that `execve(2)` keeps
/// are kept.
pub fn execute(path: &OsStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    match CString::new(path.as_bytes()) {
        Ok(path) => execute_c(&path, arguments, environment),
        Err(nul) => nul.into(),
    }
}

#[expect(unsafe_code, reason = "execve(2)")]
fn execute_c(path: &CString, arguments: &[CString], environment: &[CString]) -> io::Error {
    let list = |strings: &[CString]| {
        let pointers = strings.iter().map(|text| text.as_ptr());
        pointers.chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: both lists are closed by a null pointer, and the strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// Bytes of a mask of CPUs: enough for 65,536.
const AFFINITY_SIZE: usize = 8192;

/// The CPUs that the calling thread may use, as the kernel's mask of bits.
///
/// # Errors
///
/// None in practice.
pub fn affinity() -> io::Result<Vec<u8>> {
    affinity_of(0)
}

/// The CPUs that a process may use, as the kernel's mask of bits.
///
/// # Errors
///
/// `ESRCH` if there is no such process.
#[expect(unsafe_code, reason = "the mask's size is not that of the C library's type")]
pub fn affinity_of(pid: i32) -> io::Result<Vec<u8>> {
    let mut mask = vec![0_u8; AFFINITY_SIZE];
    // SAFETY: the buffer is as long as said.
    let size = unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, pid, AFFINITY_SIZE, mask.as_mut_ptr())
    };
    let size = usize::try_from(size).map_err(|_negative| io::Error::last_os_error())?;
    mask.truncate(size);
    Ok(mask)
}

/// Lets the calling thread use those CPUs, of which the kernel takes those that the cgroup permits.
///
/// # Errors
///
/// `EINVAL` if the cgroup permits none of them.
#[expect(unsafe_code, reason = "the mask's size is not that of the C library's type")]
pub fn set_affinity(mask: &[u8]) -> io::Result<()> {
    // SAFETY: the mask is as long as said.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Opens the file in memory (`memfd_create(2)`) of that name which a process holds.
///
/// # Errors
///
/// `ENOENT` if it holds none; `EACCES` where the caller may not look into the process.
pub fn memory_file(pid: i32, name: &str) -> io::Result<std::fs::File> {
    let wanted = format!("/memfd:{name} (deleted)");
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        if std::fs::read_link(&path).is_ok_and(|target| target.as_os_str() == wanted.as_str()) {
            return std::fs::File::open(path);
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENOENT))
}

/// Lets the calling thread, and those it starts, run on every CPU that its cgroup allows.
///
/// # Errors
///
/// None in practice.
pub fn use_all_cpus() -> io::Result<()> {
    set_affinity(&[u8::MAX; AFFINITY_SIZE])
}

/// Bytes in a page of memory.
#[expect(unsafe_code, reason = "sysconf(3)")]
pub fn page_size() -> usize {
    // SAFETY: no pointer is passed.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Takes ownership of a descriptor that another program handed over by number.
///
/// # Errors
///
/// `EBADF` if it is not open.
#[expect(unsafe_code, reason = "a number is all that execve(2) hands over")]
pub fn adopt_descriptor(number: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: F_GETFD takes no argument.
    if number < 0 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and the callers adopt a number once, before opening anything.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A copy of a descriptor that is known by its number only, with the lowest free number from 3 on; closed by `execve(2)`.
///
/// # Errors
///
/// `EBADF` if it is not open, `EMFILE` at the limit on descriptors.
#[expect(unsafe_code, reason = "the descriptor is the caller's, known by its number only")]
pub fn copy_descriptor(number: i32) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: F_DUPFD_CLOEXEC takes an integer.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Makes `target` the same open file as `source`, kept across `execve(2)`. What `target` was
/// before is closed.
///
/// # Errors
///
/// `EBADF` beyond the limit on descriptors.
#[expect(unsafe_code, reason = "the target is a number that may be anybody's or nobody's")]
pub fn duplicate(source: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the callers are forked children about to execute a program, which use none of
    // their own descriptors afterwards but those they arrange here.
    let result = unsafe { libc::dup2(source.as_raw_fd(), target) };
    if result == target { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Closes every descriptor but one, in a process that has no other use for them.
#[expect(unsafe_code, reason = "close_range(2)")]
pub fn close_all_but(kept: BorrowedFd<'_>) {
    use std::os::fd::AsRawFd;
    let kept = kept.as_raw_fd().unsigned_abs();
    let close = |first: u32, last: u32| {
        // SAFETY: the callers are forked children that use none of these descriptors afterwards.
        let _none_is_open = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    };
    if kept > 0 {
        close(0, kept - 1);
    }
    close(kept + 1, u32::MAX);
}

/// Closes a descriptor, known by its number, when a program is executed.
///
/// # Errors
///
/// `EBADF` if it is not open.
#[expect(unsafe_code, reason = "the descriptor is the caller's, known by its number only")]
pub fn close_on_exec(number: i32) -> io::Result<()> {
    // SAFETY: F_SETFD takes an integer; it changes a flag of the descriptor and closes nothing.
    let result = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
