//! Makes the container, in a child of the supervisor, and becomes the OCI runtime.
//!
//! Everything this process makes, it makes in its own mount namespace (rootless: and user
//! namespace); the kernel takes it all back when the last process in there is gone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode as FileMode, OFlags, memfd_create, open};
use sarus_config::hooks::{Hook, Occasion};
use sarus_entry::flag;
use sarus_launch::{Sources, Variables, variables};
use sarus_sys::mount::{Attributes, DetachedMount, FileSystem};
use sarus_sys::root::{Kind, Root};
use serde_json::{Value, json};

use crate::block::{self, Block, Descriptors};
use crate::bundle::{self, Contents};
use crate::descriptors::Arrangement;
use crate::error::{ShimError, cannot};
use crate::image::{ImageFile, Run, attach_at, release_signals};
use crate::mode::{self, Mode};
use crate::runtime::Runtime;
use crate::seccomp::Filter;
use crate::{hooks, rootfs, user_mounts};

/// What the supervisor decided before it forked.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) run: Run<'a>,
    pub(crate) runtime: Runtime,
    pub(crate) image: ImageFile,
    /// `sarus-entry`, opened.
    pub(crate) entry: OwnedFd,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) filters: Vec<Filter>,
    /// The container's id.
    pub(crate) id: String,
}

/// The ends of what connects to the supervisor.
#[derive(Debug)]
pub(crate) struct Ends {
    /// For `sarus-entry`.
    pub(crate) entry: OwnedFd,
    /// To tell where the files of the run are, when all is made.
    pub(crate) progress: OwnedFd,
    /// Where the runtime writes its messages.
    pub(crate) output: OwnedFd,
}

/// Returns only on failure, before the runtime was executed.
pub(crate) fn construct(plan: &Plan<'_>, ends: Ends) -> Result<Infallible, ShimError> {
    let run = &plan.run;
    mode::enter(run.mode, run.caller)?;
    die_with_supervisor(run.supervisor)?;
    let mounts = user_mounts::open(run.config, run.request)?;
    let base = rootfs::make_base(run)?;
    let lower = plan.image.mount(run, &base.join("lower"))?;
    let root = rootfs::overlay(run, &base, &lower.path)?;
    let root = Root(root.as_fd());
    rootfs::mount_system(run, root)?;
    hide_cgroups(run.mode, &plan.runtime)?;
    user_mounts::attach_all(mounts, root)?;
    let workdir = make_workdir(run, root)?;
    let (arrangement, descriptors, ends) = arrange(plan, ends)?;
    let variables = container_variables(run);
    let contents = Contents {
        base: &base,
        variables: &variables,
        workdir: &workdir,
        annotations: &annotations(run, &descriptors),
        hooks: hooks::for_bundle(&plan.hooks),
    };
    let spec = hooks::precreate(&plan.hooks, bundle::configuration(run, &contents))?;
    report(&ends.progress, &base, lower.server)?;
    finish(plan, &base, (spec, &variables), (arrangement, descriptors, ends))
}

/// The kernel ends this process when the supervisor is killed; also when it was killed before
/// this was set.
fn die_with_supervisor(supervisor: i32) -> Result<(), ShimError> {
    let signal = Some(rustix::process::Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal)
        .map_err(|e| cannot("bind the life of this process to the supervisor's")(e.into()))?;
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent != Some(supervisor) {
        sarus_sys::process::exit_at_once(i32::from(crate::ENGINE_FAILED));
    }
    Ok(())
}

/// The working directory: the user's, else the image's, else `/`; made when absent.
fn make_workdir(run: &Run<'_>, root: Root<'_>) -> Result<String, ShimError> {
    let users = run.request.command.workdir.as_ref().map(|path| PathBuf::from(path.as_os_str()));
    let images = run.request.image.workdir.as_ref().filter(|path| path.starts_with('/'));
    let path = users.or(images.map(PathBuf::from)).unwrap_or_else(|| PathBuf::from("/"));
    let failed = |source| ShimError::Workdir { path: path.clone(), source };
    root.ensure(&path, Kind::Directory).map_err(failed)?;
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| failed(std::io::Error::from_raw_os_error(libc::EILSEQ)))
}

/// Keeps the runtimes from making cgroups: processes stay where the launcher put them.
///
/// runc goes on without when it may not write to the hierarchy, which it is told to expect
/// (`--rootless`); in a user namespace it may not anyway. crun is told by an option, but refuses
/// to look at a hybrid hierarchy, so it sees none.
fn hide_cgroups(mode: Mode, runtime: &Runtime) -> Result<(), ShimError> {
    let cgroups = Path::new("/sys/fs/cgroup");
    let failed = cannot("hide the cgroups from the runtime");
    if runtime.is_crun && cgroups.exists() {
        let empty = FileSystem::open("tmpfs").map_err(&failed)?;
        return attach_at(empty.mount(Attributes::default()).map_err(&failed)?, cgroups);
    }
    if mode == Mode::Privileged && cgroups.exists() {
        let copy = DetachedMount::copy_of(rustix::fs::CWD, cgroups).map_err(&failed)?;
        copy.restrict(Attributes { read_only: true, ..Attributes::default() }).map_err(&failed)?;
        return attach_at(copy, cgroups);
    }
    Ok(())
}

/// Ends that stay this process's own.
struct Kept {
    progress: OwnedFd,
    output: OwnedFd,
    entry_number: i32,
}

fn arrange(plan: &Plan<'_>, ends: Ends) -> Result<(Arrangement, Descriptors, Kept), ShimError> {
    let run = &plan.run;
    let mut arrangement = Arrangement::new(&run.caller.descriptors);
    let stdio = [
        arrangement.take(rustix::stdio::stdin())?,
        arrangement.take(rustix::stdio::stdout())?,
        arrangement.take(rustix::stdio::stderr())?,
    ];
    let entry_number = arrangement.take(&plan.entry)?;
    let socket = arrangement.take(&ends.entry)?;
    let user_namespace = match run.mode {
        Mode::Rootless => Some(arrangement.take(mode::users_own_namespace(run.caller)?)?),
        Mode::Privileged => None,
    };
    let descriptors = Descriptors { user_namespace, socket, stdio, close: Vec::new() };
    let kept = Kept { progress: ends.progress, output: ends.output, entry_number };
    Ok((arrangement, descriptors, kept))
}

fn container_variables(run: &Run<'_>) -> Variables {
    variables(Sources {
        host: &run.request.host_env,
        image: &run.request.image.env,
        site: &run.config.environment,
        user: &run.request.env,
    })
}

/// The user's annotations, and what Sarus tells hooks about logging.
fn annotations(run: &Run<'_>, descriptors: &Descriptors) -> BTreeMap<String, String> {
    let mut annotations = run.request.annotations.clone();
    let level = match run.request.verbosity {
        0 => 2,
        1 => 1,
        _ => 0,
    };
    for (name, value) in [
        ("com.hooks.logging.level", level.to_string()),
        ("com.hooks.logging.stdoutfd", descriptors.stdio[1].to_string()),
        ("com.hooks.logging.stderrfd", descriptors.stdio[2].to_string()),
        // crun would drop the supplementary groups.
        ("run.oci.keep_original_groups", "1".to_owned()),
    ] {
        annotations.entry(name.to_owned()).or_insert(value);
    }
    annotations
}

/// The command as the selection of hooks sees it.
pub(crate) fn occasion<'a>(
    command: &'a str,
    annotations: &'a BTreeMap<String, String>,
    has_bind_mounts: bool,
) -> Occasion<'a> {
    Occasion { annotations, command, has_bind_mounts }
}

/// Writes block and bundle, and becomes the runtime.
fn finish(
    plan: &Plan<'_>,
    base: &Path,
    (mut spec, variables): (Value, &Variables),
    (mut arrangement, mut descriptors, kept): (Arrangement, Descriptors, Kept),
) -> Result<Infallible, ShimError> {
    let run = &plan.run;
    let environment = bundle::final_environment(&spec, variables);
    let arguments = bundle::final_arguments(&spec, run);
    // The block's own number is part of what it says, so its place is taken first.
    let placeholder = memfd_create("sarus-entry", MemfdFlags::CLOEXEC)
        .map_err(|e| cannot("write the block for `sarus-entry`")(e.into()))?;
    let number = arrangement.take(&placeholder)?;
    descriptors.close = arrangement.to_close();
    let block = Block {
        flags: flags(run),
        arguments: &arguments,
        environment: &environment,
        search_path: search_path(&environment),
        descriptors: &descriptors,
        filters: &plan.filters,
    };
    block::write_to(&placeholder, &block, run.caller)?;
    spec["process"]["args"] =
        json!([format!("/proc/self/fd/{}", kept.entry_number), number.to_string()]);
    write_bundle(base, &spec)?;
    let arguments = plan.runtime.arguments(base, arrangement.preserved(), &plan.id);
    log::debug!("executing {arguments:?}");
    release_signals()?;
    arrangement.establish(&kept.output)?;
    let path = plan.runtime.path.clone();
    let source = sarus_sys::process::execute(path.as_os_str(), &arguments, &Runtime::environment());
    Err(ShimError::ExecuteRuntime { path, source })
}

/// Tells the supervisor where the run's files are, and waits until it has taken note.
fn report(supervisor: &OwnedFd, base: &Path, server: Option<i32>) -> Result<(), ShimError> {
    let failed = |e: rustix::io::Errno| cannot("report to the supervisor")(e.into());
    let mut text = format!("{}\n", server.unwrap_or(0)).into_bytes();
    text.extend_from_slice(base.as_os_str().as_encoded_bytes());
    rustix::io::write(supervisor, &text).map_err(failed)?;
    rustix::io::read(supervisor, &mut [0_u8; 1]).map_err(failed)?;
    Ok(())
}

fn flags(run: &Run<'_>) -> u64 {
    let bits = [
        (run.mode == Mode::Rootless, flag::JOIN_USER_NAMESPACE),
        (run.request.tty, flag::TERMINAL),
        (run.request.init, flag::INIT),
    ];
    bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
}

fn search_path(environment: &[Vec<u8>]) -> &[u8] {
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix(b"PATH="));
    path.unwrap_or(sarus_launch::DEFAULT_PATH.as_bytes())
}

fn write_bundle(base: &Path, spec: &Value) -> Result<(), ShimError> {
    let path = base.join("bundle/config.json");
    #[expect(clippy::disallowed_methods, reason = "the file is in the run's own memory")]
    std::fs::write(&path, spec.to_string()).map_err(cannot("write the bundle"))
}

/// Opens `sarus-entry`, which is installed beside this program.
pub(crate) fn open_entry() -> Result<OwnedFd, ShimError> {
    let own = std::env::current_exe().map_err(cannot("find this program's own path"))?;
    let path = own.with_file_name("sarus-entry");
    let failed = |source| ShimError::NoEntry { path: path.clone(), source };
    open(&path, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty()).map_err(|e| failed(e.into()))
}
