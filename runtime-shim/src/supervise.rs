//! The supervisor: waits for the container, forwards signals, and leaves nothing behind.
//!
//! It has one thread and waits on descriptors only. As a subreaper it becomes the parent of the
//! container's first process, and of all that the container orphans.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use sarus_config::hooks::{Hook, Stage};
use sarus_sys::process::{self, Ended, PidFd};
use sarus_sys::signals::{Received, SignalReader, stop_self};

use crate::aftermath::Aftermath;
use crate::blame::{self, Words};
use crate::channel::{Channel, News};
use crate::construct::Plan;
use crate::error::{ShimError, cannot};
use crate::forward::Forwarder;
use crate::janitor::Janitor;
use crate::reports::{self, Report};
use crate::setup::Membership;
use crate::terminal::Terminal;
use crate::{hooks, record, scratch};

/// The stages of which a runtime runs the hooks before it is done.
const STAGES: [Stage; 5] = [
    Stage::Prestart,
    Stage::CreateRuntime,
    Stage::CreateContainer,
    Stage::StartContainer,
    Stage::Poststart,
];

/// Signals that ask to end.
const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// Time in which who reads a terminal's output may take the rest, when the run is asked to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The supervisor's ends of what connects it to its child.
#[derive(Debug)]
pub(crate) struct OurEnds {
    pub(crate) entry: Channel,
    pub(crate) progress: OwnedFd,
    pub(crate) output: OwnedFd,
}

/// What is supervised.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Charge<'a> {
    /// A container that this run makes.
    Container(&'a Plan<'a>),
    /// One more program in a container that another run made.
    Program(&'a str),
}

/// How far it is.
#[derive(Debug, Default)]
struct State {
    /// All is made: the run's files, the working directory and the variables.
    built: Option<(PathBuf, PathBuf, OwnedFd)>,
    /// The builder, which became the runtime, has ended.
    runtime: Option<Ended>,
    /// The first process inside.
    command: Option<(i32, PidFd)>,
    /// The command may run.
    released: bool,
    /// Holds the container's record.
    record: Option<OwnedFd>,
    /// What the entry said of a failure.
    failure: Option<(u8, i32)>,
    /// Processes that ended before it was known which is the first inside.
    ended: Vec<(i32, Ended)>,
    /// A signal that came before there was anybody to forward it to.
    aborted: Option<i32>,
    /// A signal came that asks to end.
    asked_to_end: bool,
    /// Until when the reader of the terminal's output is waited for.
    patience: Option<Instant>,
}

pub(crate) struct Supervisor<'a> {
    charge: Charge<'a>,
    signals: SignalReader,
    ends: OurEnds,
    forwarder: Forwarder,
    builder: i32,
    state: State,
    terminal: Option<Terminal>,
    after: Aftermath,
    /// What killed runs left is to be looked for.
    sweep: bool,
    /// The first process of the container in which the program runs, if it is not the charge's own.
    host: Option<PidFd>,
}

impl<'a> Supervisor<'a> {
    /// A supervisor of what process `builder` makes.
    pub(crate) fn new(
        charge: Charge<'a>,
        (signals, ends, forwarder): (SignalReader, OurEnds, Forwarder),
        builder: i32,
    ) -> Self {
        let (state, after) = (State::default(), Aftermath::default());
        Self {
            charge,
            signals,
            ends,
            forwarder,
            builder,
            state,
            terminal: None,
            after,
            sweep: false,
            host: None,
        }
    }

    /// Ends the program when that process does: a container ends with its first process.
    pub(crate) fn end_with(&mut self, first: PidFd) {
        self.host = Some(first);
    }

    /// Leaves these children alone: the caller made them, each with its start.
    pub(crate) fn spare(&mut self, children: &[(Pid, Option<u64>)]) {
        self.after.spared = children.to_vec();
    }

    /// Has the hooks at the end run by that process.
    pub(crate) fn set_janitor(&mut self, janitor: Option<Janitor>) {
        self.after.janitor = janitor;
    }

    /// Waits until the command has ended, or could not be started.
    pub(crate) fn watch(&mut self) -> Result<i32, ShimError> {
        loop {
            self.wait()?;
            self.hear_builder()?;
            self.hear_entry()?;
            while let Some(signal) = self.signals.next().map_err(cannot("read signals"))? {
                self.handle(signal)?;
            }
            for signal in self.forwarder.due() {
                self.forward(signal);
            }
            if let Some(terminal) = &mut self.terminal {
                terminal.copy();
            }
            self.notice_end_of_host()?;
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
        if self.state.built.is_none() && self.state.runtime.is_none() {
            waited.push(PollFd::from_borrowed_fd(self.ends.progress.as_fd(), PollFlags::IN));
        }
        let sentinel = self.forwarder.interest();
        waited.extend(sentinel.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        if let Some(terminal) = &self.terminal {
            waited.extend(terminal.interests());
        }
        if let Some(host) = self.host.as_ref().filter(|_| self.state.command.is_some()) {
            waited.push(PollFd::from_borrowed_fd(host.as_fd(), PollFlags::IN));
        }
        match poll(&mut waited, self.timeout().as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(cannot("wait for events")(error.into())),
        }
    }

    /// The builder waits for an answer to each report.
    fn hear_builder(&mut self) -> Result<(), ShimError> {
        if self.state.built.is_some() || self.state.runtime.is_some() {
            return Ok(());
        }
        let Some(report) = reports::hear(self.ends.progress.as_fd())? else { return Ok(()) };
        match report {
            Report::Door { meeting: (file, place), door, server, scratch } => {
                let membership = Membership::take(file, place, door);
                let failed = cannot("let other runs of the job share");
                self.after.membership = Some(membership.map_err(failed)?);
                self.after.server = server;
                self.after.scratch.extend(scratch);
            }
            Report::Built { own, workdir, environment, server, is_first, scratch } => {
                self.after.scratch.extend(scratch);
                self.after.server = self.after.server.or(server);
                self.state.built = Some((own, workdir, environment));
                self.sweep = is_first;
            }
        }
        reports::answer(self.ends.progress.as_fd())?;
        if self.sweep {
            self.sweep = false;
            self.sweep();
        }
        Ok(())
    }

    /// While the runtime works, ends what killed runs of the user left. Those who join others
    /// leave that to them.
    fn sweep(&self) {
        if let Charge::Container(plan) = self.charge {
            sarus_sys::orphans::sweep();
            scratch::sweep(&plan.run);
        }
    }

    fn hear_entry(&mut self) -> Result<(), ShimError> {
        while let Some(news) = self.ends.entry.hear().map_err(cannot("hear `sarus-entry`"))? {
            match news {
                News::Ready { pid, master } => {
                    let process =
                        PidFd::of(pid).map_err(cannot("watch the container's first process"))?;
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

    fn handle(&mut self, signal: Received) -> Result<(), ShimError> {
        self.state.asked_to_end |= ENDING.contains(&signal.number);
        match (signal.number, &self.state.command) {
            (libc::SIGCHLD, _) => self.reap()?,
            (libc::SIGWINCH, _) if self.terminal.is_some() => {
                if let Some(terminal) = &self.terminal {
                    terminal.resize();
                }
            }
            // Its output only is awaited, and its number may be another's by now.
            (number, Some((pid, _))) if self.state.ended.iter().any(|(ended, _)| ended == pid) => {
                if number == libc::SIGTSTP {
                    stop_self();
                }
            }
            // To stop and go on twice is the same as once. A group without a shell of its own would
            // ignore SIGTSTP.
            (libc::SIGTSTP, Some((pid, command))) if self.state.released => {
                let send = |number| match process::signal_group(*pid, number) {
                    Ok(true) => Ok(()),
                    _ => command.signal(number),
                };
                let _gone_already = send(libc::SIGSTOP);
                stop_self();
                let _gone_already = send(libc::SIGCONT);
            }
            // A terminal's key is for all of a group, and has reached our own.
            (number, Some((pid, _))) if self.state.released && signal.by_kernel => {
                let _gone_already = process::signal_group(*pid, number);
            }
            (number, Some(_)) if self.state.released => {
                if self.forwarder.receive(number) {
                    self.forward(number);
                }
            }
            (number, _) if ENDING.contains(&number) => self.state.aborted = Some(number),
            (number, _) => log::debug!("signal {number} ignored before the container runs"),
        }
        Ok(())
    }

    fn forward(&self, signal: i32) {
        if let Some((_, command)) = &self.state.command {
            let _gone_already = match self.charge {
                Charge::Container(plan) if plan.run.request.init => command.queue(signal),
                _ => command.signal(signal),
            };
        }
    }

    /// What another run's container takes along when it ends has no time to say goodbye: the mounts
    /// are that run's to give back.
    fn notice_end_of_host(&mut self) -> Result<(), ShimError> {
        let (Some(host), Some((_, command))) = (&self.host, &self.state.command) else {
            return Ok(());
        };
        if host.has_ended().map_err(cannot("watch the container"))? {
            self.host = None;
            let _gone_already = command.signal(libc::SIGKILL);
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
                    }
                    self.state.ended.push((pid, ended));
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
        let Some((pid, _)) = self.state.command.as_ref().filter(|_| !self.state.released) else {
            return Ok(());
        };
        let pid = *pid;
        // A builder that became the entry itself is done, too.
        let runtime_done = self.state.runtime == Some(Ended::Exited(0)) || pid == self.builder;
        let own = rustix::process::getpid().as_raw_nonzero().get();
        if runtime_done && process::parent(pid) == Some(own) {
            if let Some(failure) = self.hook_failed() {
                return Err(failure);
            }
            if let (Charge::Container(plan), Some((_, workdir, environment))) =
                (self.charge, &self.state.built)
            {
                self.state.record = Some(record::write(plan, pid, (workdir, environment))?);
            }
            self.ends.entry.release().map_err(cannot("release the command"))?;
            self.state.released = true;
        }
        Ok(())
    }

    /// A hook that failed and that crun goes on after.
    fn hook_failed(&self) -> Option<ShimError> {
        let Charge::Container(plan) = self.charge else { return None };
        if !plan.runtime.is_crun {
            return None;
        }
        let said = read_output(&self.ends.output).ok()?;
        blame::find(&said, &plan.hooks, &STAGES).map(ShimError::from)
    }

    fn result(&mut self) -> Option<Result<i32, ShimError>> {
        if let Some(signal) = self.state.aborted {
            return Some(Ok(Ended::Signaled(signal).exit_code()));
        }
        if let Some((step, errno)) = self.state.failure {
            return Some(Err(self.ends.entry.explain(step, errno, &self.program())));
        }
        let command = self.state.command.as_ref().map(|(pid, _)| *pid);
        match self.state.runtime {
            Some(Ended::Exited(0)) | None => {}
            Some(_) if command == Some(self.builder) => {}
            Some(ended) => return Some(Err(self.runtime_failed(ended))),
        }
        // The runtime is content, and yet nobody says that he is there: the process ended before it
        // became `sarus-entry`, in a hook of the stage `startContainer`.
        if command.is_none() && !self.ends.entry.is_open() && self.state.runtime.is_some() {
            return Some(Err(self.runtime_failed(Ended::Exited(0))));
        }
        let ended = self.state.ended.iter().find(|(pid, _)| Some(*pid) == command)?.1;
        // What the entry said of a failure came before its end.
        if self.ends.entry.is_open() && self.hear_entry().is_ok() && self.state.failure.is_some() {
            return self.result();
        }
        if self.awaits_reader() { None } else { Some(Ok(ended.exit_code())) }
    }

    /// Whether there is output of the ended command that its reader has not taken: what is asked to
    /// end does not wait for it long.
    fn awaits_reader(&mut self) -> bool {
        if self.terminal.as_mut().is_none_or(Terminal::is_drained) {
            return false;
        }
        if self.state.asked_to_end && self.state.patience.is_none() {
            self.state.patience = Some(Instant::now() + PATIENCE);
        }
        self.state.patience.is_none_or(|end| Instant::now() < end)
    }

    /// How long to wait for events at most.
    fn timeout(&self) -> Option<Timespec> {
        let end = self.state.patience.map(|end| end.saturating_duration_since(Instant::now()));
        let left = [self.forwarder.timeout(), end].into_iter().flatten().min()?;
        Timespec::try_from(left).ok()
    }

    fn program(&self) -> String {
        match self.charge {
            Charge::Program(name) => name.to_owned(),
            Charge::Container(plan) => {
                let program = plan.run.request.command.args.first();
                program.map(sarus_launch::RawString::to_string_lossy).unwrap_or_default()
            }
        }
    }

    fn runtime_failed(&self, ended: Ended) -> ShimError {
        let (Charge::Container(plan), Some((own, ..))) = (self.charge, &self.state.built) else {
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
        log::debug!("the runtime's files were in `{}`", own.display());
        let said = match read_output(&self.ends.output) {
            Ok(said) => said,
            Err(source) => return cannot("read what the runtime said")(source),
        };
        match blame::find(&said, &plan.hooks, &STAGES) {
            Some(blame) => blame.into(),
            // The builder failed at the very end, before it became the runtime, and said why.
            None if said.is_empty() && ended == Ended::Exited(crate::ENGINE_FAILED.into()) => {
                ShimError::Said { code: crate::ENGINE_FAILED }
            }
            None => runtime_said(&plan.runtime.path, &said, ended),
        }
    }

    /// Gives back what the run has.
    pub(crate) fn clean_up(mut self) {
        self.terminal = None;
        self.forwarder.stop();
        // Whoever waits for this process is not to wait any longer.
        drop(self.ends);
        let hooks: &[Hook] = match self.charge {
            Charge::Container(plan) => &plan.hooks,
            Charge::Program(_) => &[],
        };
        self.after.clean_up(hooks);
        drop(self.state.record);
    }
}

/// All that was written to a file in memory.
pub(crate) fn read_output(output: &OwnedFd) -> std::io::Result<String> {
    let mut output = std::fs::File::from(output.try_clone()?);
    Ok(String::from_utf8_lossy(&hooks::read_from_start(&mut output)?).into_owned())
}

/// The runtime's own words.
fn runtime_said(runtime: &Path, said: &str, ended: Ended) -> ShimError {
    let said = Words::of(&blame::of_runtime(said)).causes.join("; ");
    let runtime = runtime.display().to_string();
    let silent = |how: String| format!("it said nothing and {how}");
    let said = match (said.is_empty(), ended) {
        (false, _) => said,
        (true, Ended::Exited(code)) => silent(format!("ended with status {code}")),
        (true, Ended::Signaled(signal)) => silent(format!("was killed by signal {signal}")),
    };
    ShimError::Runtime { runtime, said }
}
