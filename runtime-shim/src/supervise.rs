//! The supervisor: starts the container, forwards signals, waits, and leaves nothing behind.
//!
//! It has one thread and waits on descriptors only. As a subreaper it becomes the parent of the
//! container's first process, and of all that the container orphans.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sarus_config::hooks::Stage;
use sarus_config::{Config, SYSTEM_CONFIG, check_trusted, config_home, load_for_user, load_system};
use sarus_launch::Request;
use sarus_sys::process::{self, Ended, Fork, PidFd, fork};
use sarus_sys::signals::{SignalReader, stop_self};

use crate::aftermath::Aftermath;
use crate::caller::Caller;
use crate::channel::{Channel, News};
use crate::construct::{Ends, Plan, construct, occasion, open_entry};
use crate::error::{ShimError, cannot};
use crate::image::{ImageFile, Run};
use crate::mode::{self, Mode};
use crate::terminal::Terminal;
use crate::{hooks, runtime, scratch, seccomp, user_mounts};

/// Runs a container and returns the exit status of its command.
pub(crate) fn run(caller: &Caller, request: &Request) -> Result<i32, ShimError> {
    drop_setuid(caller)?;
    let (config, mode) = configure()?;
    let supervisor = rustix::process::getpid().as_raw_nonzero().get();
    let run = Run { caller, request, config: &config, mode, supervisor };
    let plan = plan(run)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| cannot("become the parent of orphans")(e.into()))?;
    let signals = SignalReader::open().map_err(cannot("read signals"))?;
    let (ours, theirs) = connect()?;
    match fork().map_err(cannot("make a process"))? {
        Fork::Child => {
            drop((ours, signals));
            match construct(&plan, theirs)? {}
        }
        Fork::Parent(builder) => {
            drop(theirs);
            sarus_sys::orphans::sweep();
            scratch::sweep(&config);
            let after = Aftermath::new(&plan);
            let builder = builder.as_raw_pid();
            let mut supervisor = Supervisor::new(&plan, (signals, ours), builder, after);
            let result = supervisor.watch();
            supervisor.clean_up();
            result
        }
    }
}

/// A setuid installation gives its privilege up at once: runs of users are rootless.
fn drop_setuid(caller: &Caller) -> Result<(), ShimError> {
    let failed = |e: rustix::io::Errno| ShimError::Privileges { source: e.into() };
    if rustix::process::getegid().as_raw() != caller.gid {
        let gid = rustix::process::Gid::from_raw(caller.gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
    }
    if rustix::process::geteuid().as_raw() != caller.uid {
        let uid = rustix::process::Uid::from_raw(caller.uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)?;
        let dumpable = rustix::process::DumpableBehavior::Dumpable;
        rustix::process::set_dumpable_behavior(dumpable).map_err(failed)?;
        log::info!("`sarus-shim` is setuid root and gave the privilege up");
    }
    Ok(())
}

/// The configuration, and the mode that it and the node lead to.
fn configure() -> Result<(Config, Mode), ShimError> {
    let failed = |source| ShimError::Config { source };
    let site = Path::new(SYSTEM_CONFIG);
    if rustix::process::geteuid().is_root() && site.exists() {
        let parsed = load_system(site).map_err(failed)?;
        if parsed.config.security_checks {
            check_trusted(site).map_err(failed)?;
        }
    }
    let parsed = load_system(site).map_err(failed)?;
    let mode = mode::choose(&parsed.config);
    let parsed = match mode {
        Mode::Privileged => parsed,
        Mode::Rootless => {
            let variable = |name: &str| std::env::var_os(name);
            let home =
                config_home(variable("XDG_CONFIG_HOME").as_deref(), variable("HOME").as_deref());
            load_for_user(site, home.as_deref()).map_err(failed)?
        }
    };
    for note in &parsed.notes {
        log::info!("{note}");
    }
    warn_of_what_is_not_applied(&parsed.config);
    Ok((parsed.config, mode))
}

/// A site that configured a restriction must not believe that it holds.
fn warn_of_what_is_not_applied(config: &Config) {
    let keys = [
        ("apparmorProfile", config.apparmor_profile.is_some()),
        ("selinuxLabel", config.selinux_label.is_some()),
        ("selinuxMountLabel", config.selinux_mount_label.is_some()),
    ];
    for (key, _) in keys.iter().filter(|(_, is_set)| *is_set) {
        log::warn!("`{key}` in sarus.json is not applied by this version");
    }
}

fn plan(run: Run<'_>) -> Result<Plan<'_>, ShimError> {
    let image = ImageFile::open(run.request)?;
    let runtime = runtime::find(run.config, run.request)?;
    if run.mode == Mode::Privileged && run.config.security_checks {
        let mut paths = run.config.paths_to_check();
        paths.push(runtime.path.clone());
        let checked = paths.iter().try_for_each(|path| check_trusted(path));
        checked.map_err(|source| ShimError::Config { source })?;
    }
    let command = run.request.command.args.first();
    let command = command.map(sarus_launch::RawString::to_string_lossy).unwrap_or_default();
    let has_bind_mounts = user_mounts::has_bind_mounts(run.config, run.request);
    let occasion = occasion(&command, &run.request.annotations, has_bind_mounts);
    let hooks = hooks::select(run.config, run.mode, &occasion)?;
    let id = run.request.name.clone().unwrap_or_else(|| format!("sarus-{}", run.supervisor));
    let filters = seccomp::filters(run.config)?;
    Ok(Plan { run, runtime, image, entry: open_entry()?, hooks, filters, id })
}

/// The supervisor's ends of what connects it to its child.
pub(crate) struct OurEnds {
    pub(crate) entry: Channel,
    pub(crate) progress: OwnedFd,
    pub(crate) output: OwnedFd,
}

fn connect() -> Result<(OurEnds, Ends), ShimError> {
    let failed = |e: rustix::io::Errno| cannot("make a socket")(e.into());
    let pair = || {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed)
    };
    let (entry, theirs) = pair()?;
    let (progress, report) = pair()?;
    let output = memfd_create("runtime", MemfdFlags::CLOEXEC).map_err(failed)?;
    let copy = output.try_clone().map_err(cannot("copy a descriptor"))?;
    let ends = Ends { entry: theirs, progress: report, output: copy };
    Ok((OurEnds { entry: Channel::new(entry)?, progress, output }, ends))
}

/// How far the container is.
#[derive(Debug, Default)]
struct State {
    /// Where the run's files are, once the builder said so.
    base: Option<PathBuf>,
    /// The builder, which became the runtime, has ended.
    runtime: Option<Ended>,
    /// The container's first process.
    command: Option<(i32, PidFd)>,
    /// The command may run.
    released: bool,
    /// What the entry said of a failure.
    failure: Option<(u8, i32)>,
    /// Processes that ended before it was known which is the container's first.
    ended: Vec<(i32, Ended)>,
    /// A signal that came before there was anybody to forward it to.
    aborted: Option<i32>,
}

struct Supervisor<'a> {
    plan: &'a Plan<'a>,
    signals: SignalReader,
    ends: OurEnds,
    builder: i32,
    state: State,
    terminal: Option<Terminal>,
    after: Aftermath,
}

impl<'a> Supervisor<'a> {
    fn new(
        plan: &'a Plan<'a>,
        (signals, ends): (SignalReader, OurEnds),
        builder: i32,
        after: Aftermath,
    ) -> Self {
        let state = State::default();
        Self { plan, signals, ends, builder, state, terminal: None, after }
    }

    /// Waits until the command has ended, or could not be started.
    fn watch(&mut self) -> Result<i32, ShimError> {
        loop {
            self.wait()?;
            self.hear_builder()?;
            self.hear_entry()?;
            while let Some(signal) = self.signals.next().map_err(cannot("read signals"))? {
                self.handle(signal)?;
            }
            if let Some(terminal) = &mut self.terminal {
                terminal.copy();
            }
            if let Some(result) = self.result() {
                return result;
            }
            self.release_when_ready()?;
        }
    }

    fn wait(&self) -> Result<(), ShimError> {
        let mut waited = vec![PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN)];
        if self.ends.entry.is_open() {
            waited.push(PollFd::from_borrowed_fd(self.ends.entry.as_fd(), PollFlags::IN));
        }
        if self.state.base.is_none() && self.state.runtime.is_none() {
            waited.push(PollFd::from_borrowed_fd(self.ends.progress.as_fd(), PollFlags::IN));
        }
        if let Some(terminal) = &self.terminal {
            waited.extend(terminal.interests());
        }
        match poll(&mut waited, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(cannot("wait for events")(error.into())),
        }
    }

    /// The builder reports once, when all is made, and waits for an answer before it becomes the
    /// runtime.
    fn hear_builder(&mut self) -> Result<(), ShimError> {
        if self.state.base.is_some() || self.state.runtime.is_some() {
            return Ok(());
        }
        let mut report = [0_u8; 4200];
        let flags = rustix::net::RecvFlags::DONTWAIT;
        let Ok((_, size @ 1..)) = rustix::net::recv(&self.ends.progress, &mut report, flags) else {
            return Ok(());
        };
        let base = self.after.hear(&report[..size], self.builder);
        self.state.base = Some(base);
        rustix::net::send(&self.ends.progress, b"K", rustix::net::SendFlags::NOSIGNAL)
            .map_err(|e| cannot("answer the child")(e.into()))?;
        Ok(())
    }

    fn hear_entry(&mut self) -> Result<(), ShimError> {
        while let Some(news) = self.ends.entry.hear().map_err(cannot("hear `sarus-entry`"))? {
            match news {
                News::Ready { pid, master } => {
                    let process = rustix::process::Pid::from_raw(pid)
                        .ok_or_else(|| std::io::Error::from_raw_os_error(libc::ESRCH))
                        .and_then(PidFd::open)
                        .map_err(cannot("watch the container's first process"))?;
                    self.state.command = Some((pid, process));
                    if let Some(master) = master {
                        self.terminal = Some(Terminal::adopt(master)?);
                    }
                }
                News::Failed { step, errno } => self.state.failure = Some((step, errno)),
            }
        }
        Ok(())
    }

    fn handle(&mut self, signal: i32) -> Result<(), ShimError> {
        match (signal, &self.state.command) {
            (libc::SIGCHLD, _) => self.reap()?,
            (libc::SIGWINCH, _) if self.terminal.is_some() => {
                if let Some(terminal) = &self.terminal {
                    terminal.resize();
                }
            }
            (libc::SIGTSTP, Some((_, command))) if self.state.released => {
                let _gone_already = command.signal(libc::SIGSTOP);
                stop_self();
                let _gone_already = command.signal(libc::SIGCONT);
            }
            (_, Some((_, command))) if self.state.released => {
                let _gone_already = command.signal(signal);
            }
            (libc::SIGHUP | libc::SIGINT | libc::SIGQUIT | libc::SIGTERM, _) => {
                self.state.aborted = Some(signal);
            }
            _ => log::debug!("signal {signal} ignored before the container runs"),
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<(), ShimError> {
        loop {
            match process::reap_any() {
                Ok(Some((pid, ended))) => {
                    let pid = pid.as_raw_nonzero().get();
                    if pid == self.builder {
                        self.state.runtime = Some(ended);
                    } else {
                        self.state.ended.push((pid, ended));
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(()),
                Err(error) => return Err(cannot("wait for processes")(error)),
            }
        }
    }

    /// Lets the command run once the runtime is done with it, and this process is its parent: from
    /// then on it dies with its parent. crun leaves a child that goes a little later.
    fn release_when_ready(&mut self) -> Result<(), ShimError> {
        let runtime_done = self.state.runtime == Some(Ended::Exited(0));
        let command = self.state.command.as_ref();
        let parent = command.and_then(|(pid, _)| process::parent(*pid));
        let is_ours = parent == Some(self.plan.run.supervisor);
        if runtime_done && is_ours && !self.state.released {
            self.ends.entry.release().map_err(cannot("release the command"))?;
            self.state.released = true;
        }
        Ok(())
    }

    fn result(&mut self) -> Option<Result<i32, ShimError>> {
        if let Some(signal) = self.state.aborted {
            return Some(Ok(Ended::Signaled(signal).exit_code()));
        }
        if let Some((step, errno)) = self.state.failure {
            return Some(Err(self.ends.entry.explain(step, errno, self.plan.run.request)));
        }
        match self.state.runtime {
            Some(Ended::Exited(0)) | None => {}
            Some(ended) => return Some(Err(self.runtime_failed(ended))),
        }
        let command = self.state.command.as_ref().map(|(pid, _)| *pid);
        let ended = self.state.ended.iter().find(|(pid, _)| Some(*pid) == command)?.1;
        // What the entry said of a failure came before its end.
        if self.ends.entry.is_open() && self.hear_entry().is_ok() && self.state.failure.is_some() {
            return self.result();
        }
        if let Some(terminal) = &mut self.terminal {
            terminal.drain();
        }
        Some(Ok(ended.exit_code()))
    }

    fn runtime_failed(&self, ended: Ended) -> ShimError {
        let Some(base) = &self.state.base else {
            return match ended {
                Ended::Exited(code) => {
                    ShimError::Said { code: u8::try_from(code).unwrap_or(crate::ENGINE_FAILED) }
                }
                Ended::Signaled(signal) => {
                    let source = std::io::Error::other(format!("killed by signal {signal}"));
                    cannot("make the container")(source)
                }
            };
        };
        log::debug!("the runtime's files were in `{}`", base.display());
        let mut output = std::fs::File::from(match self.ends.output.try_clone() {
            Ok(copy) => copy,
            Err(source) => return cannot("read what the runtime said")(source),
        });
        let said = hooks::read_from_start(&mut output).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().replace('\n', "; ");
        let runtime = self.plan.runtime.path.display().to_string();
        let said = if said.is_empty() { format!("{ended:?}") } else { said };
        ShimError::Runtime { runtime, said }
    }

    fn clean_up(&mut self) {
        self.terminal = None;
        self.after.clean_up(self.plan, &self.state.ended);
    }
}

/// Whether a hook of the stage `poststop` runs for this container.
pub(crate) fn has_poststop(plan: &Plan<'_>) -> bool {
    plan.hooks.iter().any(|hook| hook.stages.contains(&Stage::Poststop))
}
