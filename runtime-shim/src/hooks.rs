//! Hooks: which run, those of the stage `precreate`, and the other stages in the bundle.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use sarus_config::check_trusted;
use sarus_config::hooks::{self, Decision, Directories, Hook, Occasion, Stage};
use sarus_sys::signals::{SignalMask, set_mask};
use serde_json::{Value, json};

use crate::adopt;
use crate::blame::{self, Blame, Words};
use crate::error::ShimError;
use crate::image::Run;
use crate::mode::Mode;
use crate::user_mounts;

/// Most that is read of what a program says.
const OUTPUT_MAX: u64 = 64 << 20;

/// Time that a hook has to plan, where its file names none.
const PATIENCE: Duration = Duration::from_secs(30);

/// Annotations that options stand for, whose work only a hook does, and without which the container is
/// not what was asked for.
const OPTIONS: [(&str, &str); 2] =
    [("com.hooks.mpi.enabled", "--mpi"), ("com.hooks.ssh.enabled", "--ssh")];

/// How a program failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What became of it.
    pub(crate) how: String,
    /// What it said.
    pub(crate) words: Words,
}

impl Failure {
    fn new(how: String) -> Self {
        Self { how, words: Words::default() }
    }

    /// On one line.
    pub(crate) fn sentence(&self) -> String {
        let how = std::iter::once(self.how.as_str());
        how.chain(self.words.causes.iter().map(String::as_str)).collect::<Vec<_>>().join(": ")
    }
}

/// The hooks that run for this container, in their order.
pub(crate) fn select(run: &Run<'_>) -> Result<Vec<Hook>, ShimError> {
    let examined = examine(run)?;
    let selected: Vec<Hook> =
        examined.into_iter().filter_map(|(hook, found)| found.runs.then_some(hook)).collect();
    for (annotation, option) in OPTIONS {
        let is_asked = run.request.annotations.get(annotation).is_some_and(|value| value == "true");
        if is_asked && is_first_task(run) && !selected.iter().any(|hook| hook.heeds(annotation)) {
            log::warn!(
                "`{option}` does nothing here: of the hooks that run none heeds the annotation \
                 `{annotation}` (see `sarus hooks`)"
            );
        }
    }
    Ok(selected)
}

/// One of a step's tasks speaks for all.
fn is_first_task(run: &Run<'_>) -> bool {
    let mut numbers = sarus_launch::TASKS.iter().map(|(number, _)| number);
    let number = numbers.find_map(|name| run.request.host_variable(name));
    number.is_none_or(|number| number.to_string_lossy() == "0")
}

/// All hooks, in their order, each with the decision whether it runs.
pub(crate) fn examine(run: &Run<'_>) -> Result<Vec<(Hook, Decision)>, ShimError> {
    let (config, request) = (run.config, run.request);
    let directories = Directories::of(config);
    let untrusted = |source| ShimError::Config { source };
    let checked = run.mode == Mode::Privileged && config.security_checks;
    if checked {
        directories
            .existing()
            .iter()
            .try_for_each(|path| check_trusted(path))
            .map_err(untrusted)?;
    }
    let hooks = hooks::load(&directories).map_err(|source| ShimError::Hooks { source })?;
    if checked {
        let paths = hooks::paths_to_check(&hooks);
        paths.iter().try_for_each(|path| check_trusted(path)).map_err(untrusted)?;
    }
    // The user's command, as they said it.
    let command = request.command.args.first().map(sarus_launch::RawString::to_string_lossy);
    let occasion = Occasion {
        annotations: &request.annotations,
        command: &command.unwrap_or_default(),
        has_bind_mounts: user_mounts::has_bind_mounts(config, request),
    };
    let examined = hooks.into_iter().map(|hook| {
        let decision = hook.decide(&occasion);
        let verb = if decision.runs { "runs" } else { "does not run" };
        log::debug!("hook `{}` {verb}: {}", hook.file.display(), decision.reason);
        (hook, decision)
    });
    Ok(examined.collect())
}

/// The `hooks` of the bundle, by stage, without `precreate`, which no runtime knows.
pub(crate) fn for_bundle(hooks: &[Hook]) -> Value {
    let mut stages: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for hook in hooks {
        for stage in hook.stages.iter().filter(|stage| **stage != Stage::Precreate) {
            stages.entry(stage.name()).or_default().push(entry(hook));
        }
    }
    json!(stages)
}

fn entry(hook: &Hook) -> Value {
    let mut entry = json!({ "path": hook.path, "env": environment(hook) });
    if !hook.args.is_empty() {
        entry["args"] = json!(hook.args);
    }
    if let Some(timeout) = hook.timeout {
        entry["timeout"] = json!(timeout.as_secs());
    }
    entry
}

/// The variables of a hook: those of its file, else a search path. Never none: a runtime that is told of
/// none hands its own over, and runc's are the container's, which the user sets, at the stage
/// `createContainer`, where the hook may be root's.
fn environment(hook: &Hook) -> Vec<String> {
    if hook.env.is_empty() {
        return vec![format!("PATH={}", sarus_launch::DEFAULT_PATH)];
    }
    hook.env.clone()
}

/// Runs the hooks of the stage `precreate`, each on what the one before it left: the
/// configuration of the bundle on standard input, the edited one on standard output. No output
/// leaves it as it was.
pub(crate) fn precreate(hooks: &[Hook], mut spec: Value) -> Result<Value, ShimError> {
    for hook in hooks.iter().filter(|hook| hook.stages.contains(&Stage::Precreate)) {
        let failed = |failure: Failure| {
            let which = blame::name(hook, Some(Stage::Precreate));
            ShimError::from(Blame { which, how: failure.how, words: failure.words })
        };
        let mut command = program(hook);
        let input = spec.to_string();
        let output =
            run_to_end(&mut command, Some(input.as_bytes()), hook.timeout).map_err(failed)?;
        if output.iter().any(|byte| !byte.is_ascii_whitespace()) {
            let parsed: Result<Value, _> = serde_json::from_slice(&output);
            spec = parsed
                .map_err(|error| format!("its output is no JSON: {error}"))
                .and_then(|edited| adopt::check(&edited).map(|()| edited))
                .map_err(|how| failed(Failure::new(how)))?;
        }
    }
    Ok(spec)
}

/// The program of a hook, with its arguments and variables.
fn program(hook: &Hook) -> Command {
    let mut command = Command::new(&hook.path);
    let (name, rest) = hook.args.split_first().map_or((None, &[][..]), |(n, r)| (Some(n), r));
    if let Some(name) = name {
        command.arg0(name);
    }
    let variables = environment(hook);
    let variables = variables.iter().filter_map(|entry| entry.split_once('='));
    command.args(rest).env_clear().envs(variables);
    command
}

/// Runs a hook of the stage `poststop` in a runtime's place. The error is in words.
pub(crate) fn run_late(hook: &Hook, state: &Value) -> Result<(), String> {
    let input = state.to_string();
    let done = run_to_end(&mut program(hook), Some(input.as_bytes()), hook.timeout);
    done.map(drop).map_err(|failure| {
        let which = blame::name(hook, Some(Stage::Poststop));
        Blame { which, how: failure.how, words: failure.words }.warning()
    })
}

/// Asks the program of a hook what it would do; it does nothing. The error is in words.
pub(crate) fn ask(hook: &Hook, input: &Value) -> Result<Value, String> {
    let mut command = program(hook);
    command.arg("--plan");
    let timeout = hook.timeout.unwrap_or(PATIENCE);
    let said = run_to_end(&mut command, Some(input.to_string().as_bytes()), Some(timeout))
        .map_err(|failure| failure.sentence())?;
    serde_json::from_slice(&said).map_err(|error| format!("its plan is no JSON: {error}"))
}

/// Runs a program with `input` as its standard input, and returns its standard output. Files in
/// memory, not pipes, so that neither side ever waits for the other.
///
/// The only place of the shim that starts a program and waits for it, but for the container's
/// own.
pub(crate) fn run_to_end(
    command: &mut Command,
    input: Option<&[u8]>,
    timeout: Option<Duration>,
) -> Result<Vec<u8>, Failure> {
    let words = |error: std::io::Error| Failure::new(error.to_string());
    let mut files = Vec::new();
    for name in ["stdin", "stdout", "stderr"] {
        let file = memfd_create(name, MemfdFlags::CLOEXEC).map_err(|e| words(e.into()))?;
        files.push(std::fs::File::from(file));
    }
    let [stdin, stdout, stderr] = &mut files[..] else {
        return Err(Failure::new("no files".to_owned()));
    };
    stdin.write_all(input.unwrap_or_default()).map_err(words)?;
    stdin.rewind().map_err(words)?;
    command
        .stdin(Stdio::from(stdin.try_clone().map_err(words)?))
        .stdout(Stdio::from(stdout.try_clone().map_err(words)?))
        .stderr(Stdio::from(stderr.try_clone().map_err(words)?));
    log::debug!("starting {command:?}");
    let mut child = spawn_unblocked(command).map_err(words)?;
    let ended = wait(&mut child, timeout);
    let said = read_from_start(stderr).map_err(words)?;
    let said = Words::of(&String::from_utf8_lossy(&said));
    let status = match ended {
        Ok(status) => status,
        Err(how) => return Err(Failure { how, words: said }),
    };
    if status.success() {
        return read_from_start(stdout).map_err(words);
    }
    Err(Failure { how: status.to_string(), words: said })
}

/// Starts a program that has no signal blocked, as it would by inheritance: so that it can be
/// ended. What is pending reaches this process meanwhile, as it is about to anyway.
fn spawn_unblocked(command: &mut Command) -> std::io::Result<std::process::Child> {
    let before = set_mask(SignalMask(0))?;
    let child = command.spawn();
    set_mask(before)?;
    child
}

fn wait(
    child: &mut std::process::Child,
    timeout: Option<Duration>,
) -> Result<std::process::ExitStatus, String> {
    let words = |error: std::io::Error| error.to_string();
    if let Some(timeout) = timeout {
        let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or("no process id")?;
        let process = sarus_sys::process::PidFd::open(pid).map_err(words)?;
        let mut waited = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        let limit = Timespec::try_from(timeout).map_err(|error| error.to_string())?;
        let ready = poll(&mut waited, Some(&limit)).map_err(|e| words(e.into()))?;
        if ready == 0 {
            child.kill().map_err(words)?;
            child.wait().map_err(words)?;
            return Err(format!("it did not end within {} s and was killed", timeout.as_secs()));
        }
    }
    child.wait().map_err(words)
}

/// All that a program wrote to a file.
pub(crate) fn read_from_start(file: &mut std::fs::File) -> std::io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
