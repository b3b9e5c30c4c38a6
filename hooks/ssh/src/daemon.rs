//! Starts the server: a process in the container's namespaces with the user's rights alone, and
//! no descriptor of the hook's.

use std::ffi::{CString, OsStr};
use std::io::{ErrorKind, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair, sockopt,
};
use rustix::process::{Gid, fchdir, umask};
use sarus_hook::{Container, Failure};
use sarus_sys::identity::{Person, become_person, seal_privileges, with_rights_of};
use sarus_sys::namespace;
use sarus_sys::process::{self, Fork, PidFd, fork};
use sarus_sys::root::Root;

use crate::settings::Settings;
use crate::{PLACE, scripts};

/// Time for the server to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// Pause between two looks whether it does.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Most of its log that goes into an error, in bytes.
const LOG_MAX: u64 = 2000;

/// All that is needed to start it.
#[derive(Debug)]
pub(crate) struct Start {
    root: OwnedFd,
    processes: OwnedFd,
    /// The user namespace that the container's command enters.
    users: Option<OwnedFd>,
    person: Person,
    groups: Vec<u32>,
    port: u16,
    pidfile: PathBuf,
    pidfile_host: Option<PathBuf>,
    has_loader: bool,
}

impl Start {
    /// Opens the namespaces of the container's process.
    ///
    /// # Errors
    ///
    /// Where they cannot be opened.
    pub(crate) fn of(
        container: &Container,
        settings: &Settings,
        (person, pid): (Person, i32),
        has_loader: bool,
    ) -> Result<Self, Failure> {
        let failed = |error| Failure::new("cannot open the container's namespaces").because(error);
        let default = Path::new(PLACE).join("dropbear.pid");
        Ok(Self {
            root: container.root()?.0.try_clone_to_owned().map_err(failed)?,
            processes: namespace::of(&pid.to_string(), "pid").map_err(failed)?,
            users: inner_users(pid).map_err(failed)?,
            person,
            groups: container.person().groups,
            port: settings.port,
            pidfile: settings.pidfile_container.clone().unwrap_or(default),
            pidfile_host: settings.pidfile_host.clone(),
            has_loader,
        })
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    ///
    /// Where the port is taken, or the server ends; in its words.
    pub(crate) fn start(&self) -> Result<(), Failure> {
        self.check_port()?;
        let failed = |error: std::io::Error| {
            Failure::new("cannot start the ssh server in the container").because(error)
        };
        let pid = self.fork_into().map_err(failed)?;
        let server = PidFd::of(pid).map_err(|_gone| self.ended())?;
        let until = Instant::now() + LISTENS_WITHIN;
        while !self.listens().map_err(failed)? {
            let mut waited = [PollFd::from_borrowed_fd(server.as_fd(), PollFlags::IN)];
            let ended = poll(&mut waited, Some(&PAUSE)).map_err(|e| failed(e.into()))?;
            if ended > 0 {
                return Err(self.ended());
            }
            if Instant::now() > until {
                let _gone_already = server.signal(libc::SIGKILL);
                return Err(self.ended().because("it does not listen"));
            }
        }
        let Some(path) = &self.pidfile_host else { return Ok(()) };
        let written = with_rights_of(self.person, || {
            let flags = OFlags::CREATE
                | OFlags::WRONLY
                | OFlags::TRUNC
                | OFlags::NOFOLLOW
                | OFlags::NONBLOCK
                | OFlags::CLOEXEC;
            let file = open(path, flags, Mode::from_raw_mode(0o644))?;
            std::fs::File::from(file).write_all(format!("{pid}\n").as_bytes())
        });
        written.and_then(|written| written).map_err(|error| {
            let what = format!("cannot write the ssh server's process id to `{}`", path.display());
            Failure::new(what).because(error)
        })
    }

    fn check_port(&self) -> Result<(), Failure> {
        let port = self.port;
        match TcpListener::bind(("::", port)).or_else(|error| match error.kind() {
            ErrorKind::AddrInUse => Err(error),
            // Without IPv6.
            _ => TcpListener::bind(("0.0.0.0", port)),
        }) {
            Ok(_free) => Ok(()),
            Err(error) => Err(Failure::new(format!("cannot listen for ssh on port {port}"))
                .because(error)
                .hint(
                    "another of your containers on this node, or somebody else, has it: choose \
                     another by `--annotation com.hooks.ssh.port=N`",
                )),
        }
    }

    /// Whether the server has written its process id. With the user's rights: the way there is
    /// theirs to change.
    fn listens(&self) -> std::io::Result<bool> {
        with_rights_of(self.person, || Root(self.root.as_fd()).resolve(&self.pidfile).is_ok())
    }

    fn ended(&self) -> Failure {
        // The log is the user's, who may have put a link in its place.
        let read = with_rights_of(self.person, || {
            let mut said = Vec::new();
            let log = Root(self.root.as_fd()).open_file(&Path::new(PLACE).join("log"))?;
            std::io::Read::read_to_end(&mut std::io::Read::take(log, LOG_MAX), &mut said)?;
            Ok(said)
        });
        // What cannot be read has nothing to say.
        let said = read.and_then(|read: std::io::Result<_>| read).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
        let failure = Failure::new("the ssh server in the container ended at once");
        if said.is_empty() { failure } else { failure.because(said) }
    }

    /// A process in the container's PID namespace, and its id out here.
    ///
    /// The kernel takes a process into a PID namespace only when it is made, so one is made that
    /// makes the server: then the server's parent is in the namespace too, and when that ends, it
    /// is the first process in there, which takes all others along.
    fn fork_into(&self) -> std::io::Result<i32> {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_passcred(&ours, true)?;
        match fork()? {
            Fork::Child => {
                drop(ours);
                let made = namespace::join(self.processes.as_fd()).and_then(|()| fork());
                match made {
                    Ok(Fork::Child) => match fork() {
                        Ok(Fork::Child) => {
                            let told = rustix::io::write(&theirs, b"S");
                            let _error = told.map(|_size| self.become_server());
                            process::exit_at_once(127)
                        }
                        Ok(Fork::Parent(_server)) => process::exit_at_once(0),
                        Err(error) => process::exit_at_once(error.raw_os_error().unwrap_or(1)),
                    },
                    Ok(Fork::Parent(between)) => match between.wait() {
                        Ok(ended) => process::exit_at_once(ended.exit_code()),
                        Err(error) => process::exit_at_once(error.raw_os_error().unwrap_or(1)),
                    },
                    Err(error) => process::exit_at_once(error.raw_os_error().unwrap_or(1)),
                }
            }
            Fork::Parent(child) => {
                drop(theirs);
                let pid = sender(&ours);
                match (child.wait()?, pid) {
                    (process::Ended::Exited(0), Some(pid)) => Ok(pid),
                    (process::Ended::Exited(errno @ 1..), _) => {
                        Err(std::io::Error::from_raw_os_error(errno))
                    }
                    _ => Err(ErrorKind::Interrupted.into()),
                }
            }
        }
    }

    /// Returns only on failure.
    fn become_server(&self) -> std::io::Result<std::convert::Infallible> {
        rustix::process::setsid()?;
        fchdir(&self.root)?;
        rustix::process::chroot(".")?;
        let is_privileged = namespace::is_initial_user();
        if let Some(users) = &self.users {
            namespace::join_user(users.as_fd())?;
        }
        seal_privileges()?;
        if is_privileged {
            let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
            rustix::thread::set_thread_groups(&groups)?;
            become_person(self.person)?;
        } else {
            let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
            become_person(Person { uid: uid.as_raw(), gid: gid.as_raw() })?;
        }
        umask(Mode::from_raw_mode(0o022));
        let log = Path::new(PLACE).join("log");
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let log = open(log, flags, Mode::empty())?;
        // From here on this process has no descriptor but the log.
        process::close_all_but(log.as_fd());
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        process::duplicate(null.as_fd(), 0)?;
        for target in [1, 2] {
            process::duplicate(log.as_fd(), target)?;
        }
        let words = self.words();
        let path = words.first().cloned().unwrap_or_default();
        let words: Vec<CString> =
            words.into_iter().filter_map(|word| CString::new(word).ok()).collect();
        Err(process::execute(OsStr::new(&path), &words, &[c"PATH=/usr/bin:/bin".to_owned()]))
    }

    fn words(&self) -> Vec<String> {
        let mut words = scripts::start_words("dropbear", self.has_loader);
        let (key, session) = (format!("{PLACE}/host_key"), format!("{PLACE}/session"));
        let (port, pidfile) = (self.port.to_string(), self.pidfile.display().to_string());
        // In the foreground, no passwords, no greeting.
        words.extend(["-F", "-E", "-s", "-g", "-m"].map(str::to_owned));
        let pairs = [("-r", key), ("-p", port), ("-P", pidfile), ("-c", session)];
        words.extend(pairs.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
        words
    }
}

/// Who sent the next packet, as this process sees it: the kernel translates its id.
fn sender(socket: &OwnedFd) -> Option<i32> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut packet = [0; 1];
    let mut parts = [rustix::io::IoSliceMut::new(&mut packet)];
    recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid.as_raw_nonzero().get()),
        _ => None,
    })
}

/// The user namespace below the own one that a process holds a descriptor of: the one that its
/// command enters. An engine without such a namespace passes none.
fn inner_users(pid: i32) -> std::io::Result<Option<OwnedFd>> {
    if namespace::is_initial_user() {
        return Ok(None);
    }
    let own = namespace::own_number("user")?;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        // Descriptors come and go.
        let Ok(target) = std::fs::read_link(&path) else { continue };
        if !target.to_string_lossy().starts_with("user:[") {
            continue;
        }
        let Ok(users) = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else {
            continue;
        };
        let above = namespace::parent_of(users.as_fd()).and_then(namespace::number);
        if above.is_ok_and(|above| above == own) {
            return Ok(Some(users));
        }
    }
    Ok(None)
}

/// Removes the file with the server's process id, with the rights of the caller. Another file stays.
///
/// # Errors
///
/// Where it cannot be removed.
pub(crate) fn remove_pidfile(path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot remove `{}`", path.display())).because(error)
    };
    let text = match crate::keys::read(path, 64) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.map_err(failed)?,
    };
    let is_ours = !text.is_empty() && text.trim_ascii().iter().all(u8::is_ascii_digit);
    if is_ours { std::fs::remove_file(path).map_err(failed) } else { Ok(()) }
}
