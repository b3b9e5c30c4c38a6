//! Commands that a test starts, and what came of them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use crate::processes::{descendants, forget_child, kill, remember_child, wait_gone};
use crate::terminal::Terminal;

/// No command of a test takes longer, unless it hangs; a shared disk may stand still for minutes.
const LIMIT: Duration = Duration::from_secs(500);

/// Runs a command of the tests' own, which must succeed; returns its standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

/// A command to be started as the person of a session.
#[derive(Debug, Clone)]
pub struct Invocation {
    pub(crate) become_person: Vec<OsString>,
    pub(crate) variables: BTreeMap<OsString, OsString>,
    pub(crate) wrapper: Vec<OsString>,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) directory: PathBuf,
    pub(crate) input: Vec<u8>,
    pub(crate) keeps_input: bool,
}

impl Invocation {
    /// Adds arguments.
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.insert(name.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// The command is started by `words`: `["taskset", "-c", "0"]`.
    pub fn under(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.wrapper.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// The command is started by a shell after `script`: `umask 027`, `exec 7< file`.
    pub fn after(self, script: &str) -> Self {
        self.under(["bash", "-c", &format!("{script}; exec \"$@\""), "bash"])
    }

    /// What the command reads; nothing otherwise.
    pub fn input(mut self, input: impl AsRef<[u8]>) -> Self {
        self.input = input.as_ref().to_vec();
        self
    }

    /// What the command reads stays open, for [`Running::write`], until the command is waited for.
    pub fn keep_input(mut self) -> Self {
        self.keeps_input = true;
        self
    }

    /// Starts in another directory than the home.
    pub fn in_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    fn command(&self, extra: &[&str]) -> Command {
        let variables = self.variables.iter().map(|(name, value)| {
            let mut word = name.clone();
            word.push("=");
            word.push(value);
            word
        });
        let mut words = self.become_person.clone();
        words.extend(["env", "-i"].map(OsString::from));
        words.extend(variables);
        words.extend(extra.iter().map(OsString::from));
        words.extend(self.wrapper.iter().cloned());
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(&self.directory);
        command
    }

    /// Starts the command.
    pub fn start(&self) -> Running {
        let mut command = self.command(&[]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        remember_child(child.id());
        let mut stdin = child.stdin.take().expect("a pipe");
        let stdin = if self.keeps_input {
            Some(stdin)
        } else {
            let input = self.input.clone();
            // A command that does not read its input is no error.
            std::thread::spawn(move || drop(stdin.write_all(&input)));
            None
        };
        let stdout = child.stdout.take().expect("a pipe");
        let mut stderr = child.stderr.take().expect("a pipe");
        let (sender, lines) = channel();
        let out = std::thread::spawn(move || {
            let mut reader = BufReader::new(stdout);
            let mut all = Vec::new();
            loop {
                let start = all.len();
                match reader.read_until(b'\n', &mut all) {
                    Ok(0) | Err(_) => return all,
                    Ok(_) => drop(sender.send(String::from_utf8_lossy(&all[start..]).into_owned())),
                }
            }
        });
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&complaints);
        let err = std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(size @ 1..) = stderr.read(&mut chunk) {
                heard.lock().expect("nobody panics with it").extend_from_slice(&chunk[..size]);
            }
        });
        let what = format!("{command:?}");
        Running { what, child, stdin, lines, out: Some(out), err: Some(err), complaints }
    }

    /// Runs the command to its end.
    pub fn run(&self) -> Output {
        self.start().finish()
    }

    /// Starts the command with the terminal as its own; it is the session's leader.
    pub fn start_on(&self, terminal: &Terminal) -> Running {
        let mut command = self.command(&["setsid", "--ctty"]);
        command.stdin(terminal.inner()).stdout(terminal.inner()).stderr(terminal.inner());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        remember_child(child.id());
        let (_, lines) = channel();
        let what = format!("{command:?}");
        let complaints = Arc::default();
        Running { what, child, stdin: None, lines, out: None, err: None, complaints }
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    out: Option<JoinHandle<Vec<u8>>>,
    err: Option<JoinHandle<()>>,
    /// Standard error so far.
    complaints: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    /// The process that was started.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line on standard output.
    pub fn line(&self) -> String {
        let line = self.lines.recv_timeout(LIMIT);
        line.unwrap_or_else(|error| {
            let stderr = self.complaints();
            panic!("{}: no line of output: {error}\n--- stderr\n{stderr}", self.what)
        })
    }

    fn complaints(&self) -> String {
        let complaints = self.complaints.lock().expect("nobody panics with it");
        String::from_utf8_lossy(&complaints).into_owned()
    }

    /// Gives the command something to read, which was started with its input kept open.
    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("the input was kept open");
        stdin.write_all(text.as_bytes()).expect("the command reads");
    }

    /// Signals the process that was started, no other.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for the end; a kept input ends first.
    pub fn finish(mut self) -> Output {
        drop(self.stdin.take());
        let ended = wait_gone(self.pid(), LIMIT);
        if !ended {
            for pid in descendants(self.pid()).into_iter().chain([self.pid()]) {
                kill(pid, Signal::KILL);
            }
        }
        let status = self.child.wait().expect("it is our child");
        forget_child(self.child.id());
        let stdout = self.out.take().map(|thread| thread.join().expect("a thread"));
        let stdout = String::from_utf8_lossy(&stdout.unwrap_or_default()).into_owned();
        if let Some(thread) = self.err.take() {
            thread.join().expect("a thread");
        }
        let stderr = self.complaints();
        // What an instrumented program says where it may not write its profile.
        let kept = |line: &&str| !line.starts_with("LLVM Profile");
        let stderr = stderr.split_inclusive('\n').filter(kept).collect();
        let output = Output { what: self.what, status, stdout, stderr };
        assert!(ended, "still running after {LIMIT:?}: {output}");
        output
    }
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    what: String,
    status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The exit code; `None` after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it; `None` after an exit.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// The standard output of a command that succeeded.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.status.success(), "{self}");
        &self.stdout
    }

    /// The standard error of a command that failed with `code`.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code(), Some(code), "{self}");
        &self.stderr
    }

    /// Asserts that the command failed with `code`, and said each of `parts`: no more than one
    /// error, with what to do.
    #[track_caller]
    pub fn explains(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code(), Some(code), "{self}");
        assert_eq!(self.stdout, "", "an error is no data: {self}");
        for part in parts {
            assert!(self.stderr.contains(part), "nothing of {part:?} in: {self}");
        }
        let errors = self.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "one error: {self}");
        assert!(self.stderr.lines().any(|line| line.starts_with("hint: ")), "what to do: {self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, status, stdout, stderr } = self;
        write!(f, "{what}: {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---")
    }
}
