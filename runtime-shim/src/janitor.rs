//! The process that runs the hooks of the stage `poststop`. Made only where there are such hooks.
//!
//! It keeps the privileges that the supervisor gives up, and hears from the builder alone where the
//! container's files are. The end it notices by the supervisor's end of a socket being closed,
//! also when that one was killed.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::Pid;
use sarus_config::hooks::{Hook, Stage};
use sarus_sys::identity::become_root;
use sarus_sys::namespace;
use sarus_sys::process::{self, Fork, PidFd, fork};
use serde_json::{Value, json};

use crate::blame;
use crate::construct::Plan;
use crate::descriptors::{duplicate, hide, open_null};
use crate::error::{ShimError, cannot};
use crate::hooks;
use crate::image::release_signals;
use crate::mode::Mode;
use crate::runtime::Runtime;
use crate::start::shared_output;
use crate::supervise::read_output;

/// The supervisor's side.
#[derive(Debug)]
pub(crate) struct Janitor {
    pid: Pid,
    end: OwnedFd,
    /// What the runtime and its hooks say.
    output: OwnedFd,
}

/// The builder's end.
#[derive(Debug)]
pub(crate) struct Instructions(OwnedFd);

/// What connects all three.
#[derive(Debug)]
pub(crate) struct Lines {
    instructions: OwnedFd,
    end: OwnedFd,
    theirs: OwnedFd,
}

impl Lines {
    /// Makes the lines, before anybody is forked; `None` where there is nothing to do at the end.
    pub(crate) fn lay(plan: &Plan<'_>) -> Result<Option<(Self, Instructions)>, ShimError> {
        if !plan.has(Stage::Poststop) {
            return Ok(None);
        }
        let pair = || {
            let kind = SocketType::SEQPACKET;
            socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
                .map_err(|e| cannot("make a socket")(e.into()))
        };
        let (instructions, builder) = pair()?;
        let (theirs, end) = pair()?;
        Ok(Some((Self { instructions, end, theirs }, Instructions(builder))))
    }

    /// Starts the janitor, which joins the namespaces of `builder` and of nobody else.
    pub(crate) fn start(self, plan: &Plan<'_>, builder: i32) -> Result<Janitor, ShimError> {
        let output = shared_output()?;
        match fork().map_err(cannot("make a process"))? {
            Fork::Child => {
                drop(self.end);
                let done =
                    wait_and_delete((plan, builder), &self.instructions, (&self.theirs, &output));
                process::exit_at_once(i32::from(done.is_err()))
            }
            Fork::Parent(child) => Ok(Janitor { pid: child.pid(), end: self.end, output }),
        }
    }
}

impl Instructions {
    /// Tells where the container's files are, and waits until it is known. The caller's mount and
    /// user namespaces are those of the hooks.
    pub(crate) fn tell(&self, own: &Path) -> Result<(), ShimError> {
        let failed = |e: rustix::io::Errno| cannot("prepare the hooks at the end")(e.into());
        rustix::io::write(&self.0, own.as_os_str().as_bytes()).map_err(failed)?;
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut [0_u8; 1]));
        match read.map_err(failed)? {
            0 => Err(failed(rustix::io::Errno::PIPE)),
            _ => Ok(()),
        }
    }
}

impl Janitor {
    /// Process id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Has the hooks run, waits for them, and warns of what failed, since nothing else follows
    /// from it.
    pub(crate) fn finish(self, hooks: &[Hook]) {
        drop(self.end);
        let options = rustix::process::WaitOptions::empty();
        let ended = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(self.pid), options));
        let succeeded = matches!(&ended, Ok(Some((_, status))) if status.exit_status() == Some(0));
        let said = read_output(&self.output).unwrap_or_default();
        // A runtime may go on after such a failure, and only say it.
        match blame::find(&said, hooks, &[Stage::Poststop]) {
            Some(blame) => crate::complain(&blame.warning()),
            None if succeeded => {}
            None => {
                let late = hooks.iter().filter(|hook| hook.stages.contains(&Stage::Poststop));
                let names: Vec<String> =
                    late.map(|hook| blame::name(hook, Some(Stage::Poststop))).collect();
                let how = "the runtime does not say how".to_owned();
                let words = blame::Words::of(&said);
                let blame = blame::Blame { which: names.join(" or "), how, words };
                crate::complain(&blame.warning());
            }
        }
    }
}

fn wait_and_delete(
    (plan, builder): (&Plan<'_>, i32),
    instructions: &OwnedFd,
    (supervisor, output): (&OwnedFd, &OwnedFd),
) -> Result<std::convert::Infallible, ShimError> {
    let failed = cannot("run the hooks after the container's end");
    if plan.run.mode == Mode::Privileged {
        // Else the user could stop what the site wants done.
        become_root().map_err(|source| ShimError::Privileges { source })?;
    }
    hide(&plan.run.caller.descriptors);
    let null = open_null()?;
    for (source, target) in [(&null, 0), (output, 1), (output, 2)] {
        duplicate(source, target).map_err(&failed)?;
    }
    let mut packet = [0_u8; 8192];
    let size = rustix::io::retry_on_intr(|| rustix::io::read(instructions, &mut packet));
    let size = size.map_err(|e| failed(e.into()))?;
    // A builder that ended before made nothing.
    if size == 0 {
        process::exit_at_once(0);
    }
    let own = PathBuf::from(std::ffi::OsString::from_vec(packet[..size].to_vec()));
    let runtime = PidFd::of(builder).map_err(&failed)?;
    let open = |kind: &str| namespace::of(&builder.to_string(), kind).map_err(&failed);
    let (user, mounts) = (open("user")?, open("mnt")?);
    let is_own = namespace::own_number("user").and_then(|own| Ok(own == namespace::number(&user)?));
    rustix::io::write(instructions, b"K").map_err(|e| failed(e.into()))?;
    // The supervisor says nothing; it ends.
    let _ended = rustix::io::retry_on_intr(|| rustix::io::read(supervisor, &mut [0_u8; 1]));
    if !is_own.map_err(&failed)? {
        namespace::join_user(user.as_fd()).map_err(&failed)?;
    }
    namespace::join(mounts.as_fd()).map_err(&failed)?;
    release_signals()?;
    // When the supervisor was killed the runtime may still run hooks, which these are to come after.
    process::kill_tree(&runtime, builder).map_err(&failed)?;
    if !knows_container(plan, &own) {
        let succeeded = run_hooks(plan, &own);
        process::exit_at_once(i32::from(!succeeded))
    }
    let arguments = plan.runtime.delete_arguments(&own, plan);
    let path = plan.runtime.path.as_os_str();
    Err(failed(process::execute(path, &arguments, &Runtime::environment())))
}

/// Whether the runtime wrote down that there is a container: one that was ended while it ran hooks had
/// not, and would run none now.
fn knows_container(plan: &Plan<'_>, own: &Path) -> bool {
    let state = own.join("state").join(&plan.id);
    state.join("state.json").exists() || state.join("status").exists()
}

/// Runs the hooks as the runtime would, if it was started at all. What fails is said, and does not keep
/// the others from running.
fn run_hooks(plan: &Plan<'_>, own: &Path) -> bool {
    let bundle = own.join("bundle");
    let Ok(spec) = fs_read(&bundle.join("config.json")) else { return true };
    let spec: Value = serde_json::from_str(&spec).unwrap_or_default();
    let state = json!({
        "ociVersion": spec["ociVersion"], "id": plan.id, "status": "stopped", "bundle": bundle,
        "annotations": spec["annotations"],
    });
    let late = plan.hooks.iter().filter(|hook| hook.stages.contains(&Stage::Poststop));
    let failures = late.filter_map(|hook| hooks::run_late(hook, &state).err());
    failures.inspect(|words| crate::complain(words)).count() == 0
}

#[expect(clippy::disallowed_methods, reason = "the file is in the run's own memory")]
fn fs_read(path: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(path)
}
