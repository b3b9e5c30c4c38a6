//! `sarus ps`, `kill` and `exec`: the caller's running containers on this node.
//!
//! There is no list to be stale: each container's supervisor holds a record in memory, which its own
//! user can read as long as that process lives.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use sarus_launch::{EXEC_VERSION, ExecRequest, RECORD_NAME, RECORD_SIZE_MAX, RawString, Record};
use sarus_sys::process::{self, PidFd};
use serde::Serialize;

use crate::args::{ExecArgs, Format, KillArgs, PsArgs, Verbosity};
use crate::error::{CliError, report};
use crate::output::{self, ago, table};
use crate::plan::verbosity_level;
use crate::usage::UsageError;
use crate::{launch, to_stderr, variables};

/// Longest command shown in the list, in characters; Docker's.
const COMMAND_SHOWN_MAX: usize = 30;

/// The program that supervises containers, as the kernel names its processes.
const SUPERVISOR: &str = "sarus-shim";

/// Signals by name; those that a program can be sent for a purpose.
const SIGNALS: [(&str, i32); 28] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("SYS", libc::SIGSYS),
];

/// Largest signal number of Linux.
const SIGNAL_MAX: i32 = 64;

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// The container's id: its name, where it was given one.
    pub id: String,
    /// Process id of the container's first process.
    pub pid: i32,
    /// Process id of the supervisor.
    pub supervisor: i32,
    /// `running` or `stopped`.
    pub status: &'static str,
    /// The image, as it was named.
    pub image: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Seconds since 1970.
    pub created: u64,
    /// Whether it was made with privilege.
    pub privileged: bool,
}

impl Line {
    /// The line of a container whose first process is `stopped` or not.
    pub fn new(record: &Record, stopped: bool) -> Self {
        Self {
            id: record.id.clone(),
            pid: record.process,
            supervisor: record.supervisor,
            status: if stopped { "stopped" } else { "running" },
            image: record.image.clone(),
            command: record.command.iter().map(RawString::to_string_lossy).collect(),
            created: record.created,
            privileged: record.privileged,
        }
    }
}

/// `sarus ps`
pub(crate) fn ps(args: &PsArgs) -> Result<(), CliError> {
    let lines: Vec<Line> = records()
        .iter()
        .map(|record| Line::new(record, process::is_stopped(record.process)))
        .collect();
    if args.quiet {
        return output::text(
            &lines.iter().map(|line| format!("{}\n", line.id)).collect::<String>(),
        );
    }
    match args.format {
        Format::Json => output::json(&lines),
        Format::Table => output::text(&ps_table(&lines, jiff::Timestamp::now().as_second())),
    }
}

/// The list for people; `now` in seconds since 1970.
pub fn ps_table(lines: &[Line], now: i64) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let created = i64::try_from(line.created).unwrap_or(now);
            let command = line.command.join(" ");
            let shown = match command.char_indices().nth(COMMAND_SHOWN_MAX) {
                Some((end, _)) => format!("{}…", &command[..end]),
                None => command,
            };
            let shown = shown.replace(char::is_control, "?");
            let (pid, status) = (line.pid.to_string(), line.status.to_owned());
            vec![line.id.clone(), pid, status, line.image.clone(), shown, ago(now - created)]
        })
        .collect();
    table(&["ID", "PID", "STATUS", "IMAGE", "COMMAND", "CREATED"], &rows)
}

/// `sarus kill`
pub(crate) fn kill(args: &KillArgs) -> Result<(), CliError> {
    let signal = parse_signal(&args.signal)?;
    let records = records();
    let mut failed: Option<CliError> = None;
    for id in &args.ids {
        let sent = find(&records, id).and_then(|record| {
            let failed = |source| CliError::Signal { id: record.id.clone(), source };
            send(record, signal).map_err(failed)
        });
        // The others are signalled all the same.
        if let Err(error) = sent
            && let Some(before) = failed.replace(error)
        {
            to_stderr(&report(&before, before.hint().as_deref()));
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Signals the first process itself: so it gets the signal once. An init passes on what is queued.
fn send(record: &Record, signal: i32) -> std::io::Result<()> {
    let gone = || std::io::Error::from_raw_os_error(libc::ESRCH);
    let descriptor = PidFd::of(record.process)?;
    if !process::runs(record.process, record.process_started) {
        return Err(gone());
    }
    descriptor.queue(signal)
}

/// A signal by number, or by name with or without `SIG`, in any case.
///
/// # Errors
///
/// [`UsageError::Value`]
pub fn parse_signal(given: &str) -> Result<i32, UsageError> {
    let upper = given.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    let number = given.parse().ok().filter(|number| (1..=SIGNAL_MAX).contains(number));
    by_name.or(number).ok_or_else(|| UsageError::Value {
        option: "--signal",
        given: given.to_owned(),
        expected: "a signal's name like `TERM`, or its number",
    })
}

/// `sarus exec`
pub(crate) fn exec(args: &ExecArgs, verbosity: Verbosity) -> Result<(), CliError> {
    let env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let mut given = Vec::new();
    for path in &args.environment.env_file {
        given.extend(variables::from_file(&variables::read(path)?, &env)?);
    }
    given.extend(variables::from_options(&args.environment.env, &env)?);
    let (id, command) = args.words.split_first().ok_or(UsageError::NoExecCommand)?;
    if command.is_empty() {
        return Err(UsageError::NoExecCommand.into());
    }
    let records = records();
    let request = ExecRequest {
        version: EXEC_VERSION,
        supervisor: find(&records, &id.to_string_lossy())?.supervisor,
        args: command.iter().cloned().map(RawString::from).collect(),
        env: given,
        workdir: args.workdir.clone().map(RawString::from),
        tty: args.tty,
        verbosity: verbosity_level(verbosity),
    };
    request.check().map_err(UsageError::from)?;
    Err(launch::exec_in_container(&request).into())
}

fn find<'r>(records: &'r [Record], id: &str) -> Result<&'r Record, CliError> {
    let found = records.iter().find(|record| record.id == id);
    found.ok_or_else(|| CliError::NoContainer {
        id: id.to_owned(),
        running: records.iter().map(|record| record.id.clone()).collect(),
    })
}

/// The records of the caller's containers, by time. Processes that cannot be looked into are not
/// the caller's.
pub(crate) fn records() -> Vec<Record> {
    let uid = rustix::process::getuid().as_raw();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().map_while(Result::ok);
    let own = entries.filter(|entry| entry.metadata().is_ok_and(|found| found.uid() == uid));
    let pids = own.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut records: Vec<Record> = pids.filter_map(record).collect();
    records.sort_by(|one, other| (one.created, &one.id).cmp(&(other.created, &other.id)));
    records
}

/// The record that a supervisor holds. Other processes of its own hold it too, for a moment.
fn record(pid: i32) -> Option<Record> {
    let name = fs_err::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if name.trim_end() != SUPERVISOR {
        return None;
    }
    let file = process::memory_file(pid, RECORD_NAME).ok()?;
    let mut json = Vec::new();
    file.take(RECORD_SIZE_MAX as u64).read_to_end(&mut json).ok()?;
    let record = Record::parse(&json)
        .inspect_err(|error| log::debug!("process {pid}: {error}"))
        .ok()
        .filter(|record| record.supervisor == pid)?;
    process::runs(record.process, record.process_started).then_some(record)
}
