//! Makes the container, in a child of the supervisor, and becomes the OCI runtime.
//!
//! Everything this process makes, it makes in mount namespaces of the user's runs; the kernel takes
//! it all back when the last process and descriptor in there is gone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode as FileMode, OFlags, memfd_create, open};
use sarus_config::hooks::{Hook, Stage};
use sarus_entry::flag;
use sarus_launch::{Sources, Variables, variables};
use sarus_sys::identity::become_root;
use sarus_sys::mount::{Attributes, DetachedMount, FileSystem};
use sarus_sys::root::{Kind, Root};
use sarus_sys::scratch::Scratch;
use serde_json::{Value, json};

use crate::block::{self, Block, Descriptors};
use crate::bundle::{self, Contents};
use crate::descriptors::Arrangement;
use crate::error::{ShimError, cannot};
use crate::image::{ImageFile, Lower, Run, attach_at, release_signals};
use crate::janitor::Instructions;
use crate::mode::Mode;
use crate::rootfs::Overlay;
use crate::runtime::Runtime;
use crate::seccomp::Filter;
use crate::{adopt, hooks, reports, rootfs, setup, user_mounts, watch};

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

impl Plan<'_> {
    /// Whether a hook of that stage runs for this container.
    pub(crate) fn has(&self, stage: Stage) -> bool {
        self.hooks.iter().any(|hook| hook.stages.contains(&stage))
    }
}

/// Returns only on failure, before the runtime was executed.
pub(crate) fn construct(
    plan: &Plan<'_>,
    ends: Ends,
    janitor: Option<&Instructions>,
) -> Result<Infallible, ShimError> {
    let run = &plan.run;
    die_with_supervisor(run.supervisor)?;
    if run.mode == Mode::Privileged {
        become_root().map_err(|source| ShimError::Privileges { source })?;
    }
    let setup = setup::enter(run, &plan.image, ends.progress.as_fd())?;
    let mounts = user_mounts::open(run, &setup.base)?;
    let own = rootfs::make_own(run, &setup)?;
    let Overlay { root, scratch } = rootfs::overlay(run, &setup, &own)?;
    let root = Root(root.as_fd());
    rootfs::mount_system(run, root)?;
    hide_cgroups(&plan.runtime)?;
    user_mounts::attach_all(run, mounts, (root, &own.join("rootfs")))?;
    let workdir = make_workdir(run, root)?;
    let Lower { server, scratch: unpacked, .. } = setup.lower;
    // Kept, since dropping it would remove it: the supervisor's is a copy of the same lock.
    let unreported = unpacked.as_ref().filter(|_| !setup.is_reported);
    let (own_users, is_first) = (setup.own, setup.is_first);
    let (arrangement, descriptors, ends) = arrange(plan, ends, own_users)?;
    let variables = container_variables(run);
    let contents = Contents {
        base: &own,
        variables: &variables,
        workdir: &workdir,
        annotations: &annotations(run, descriptors.stdio),
        hidepid: hidepid(run),
        hooks: hooks::for_bundle(&plan.hooks),
    };
    let before = bundle::configuration(run, &contents);
    let mut spec = hooks::precreate(&plan.hooks, before.clone())?;
    adopt::adopt(run, root, (&before, &mut spec))?;
    adopt::check_devices(&spec)?;
    let environment = bundle::final_environment(&spec, &variables);
    let listed = write_environment(&environment)?;
    if let Some(janitor) = janitor {
        janitor.tell(&own)?;
    }
    let places = (own.as_path(), Path::new(&workdir));
    let directories: Vec<&Scratch> = scratch.iter().chain(unreported).collect();
    let rest = (server, directories.as_slice(), is_first);
    reports::report_built(ends.progress.as_fd(), places, listed.as_fd(), rest)?;
    finish(plan, &own, (spec, &environment), (arrangement, descriptors, ends))
}

/// The variables as a file in memory, each closed by a NUL byte.
fn write_environment(environment: &[Vec<u8>]) -> Result<OwnedFd, ShimError> {
    let failed = cannot("write the variables down");
    let memory = memfd_create("environment", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut file = std::fs::File::from(memory);
    let listed: Vec<u8> =
        environment.iter().flat_map(|entry| entry.iter().copied().chain([0])).collect();
    file.write_all(&listed).map_err(failed)?;
    Ok(file.into())
}

/// The kernel ends this process when the supervisor is killed; also when it was killed before
/// this was set.
pub(crate) fn die_with_supervisor(supervisor: i32) -> Result<(), ShimError> {
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
pub(crate) fn make_workdir(run: &Run<'_>, root: Root<'_>) -> Result<String, ShimError> {
    let users = run.request.command.workdir.as_ref().map(|path| PathBuf::from(path.as_os_str()));
    let images = run.request.image.workdir.as_ref().filter(|path| path.starts_with('/'));
    let path = users.or(images.map(PathBuf::from)).unwrap_or_else(|| PathBuf::from("/"));
    let failed = |source| ShimError::Workdir { path: path.clone(), source };
    user_mounts::ensure(run, root, (&path, Kind::Directory)).map_err(failed)?;
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| failed(std::io::Error::from_raw_os_error(libc::EILSEQ)))
}

/// How the host hides processes of others (`hidepid=` of `proc(5)`), for a `/proc` of the
/// container's own; the host's own `/proc` brings it along.
pub(crate) fn hidepid(run: &Run<'_>) -> Option<String> {
    if !run.request.namespaces.pid {
        return None;
    }
    let mut mounts = String::new();
    let read = std::fs::File::open("/proc/self/mountinfo")
        .and_then(|mut file| std::io::Read::read_to_string(&mut file, &mut mounts));
    read.ok().and_then(|_size| bundle::hidepid(&mounts))
}

/// Keeps the runtimes from making cgroups: processes stay where the launcher put them.
///
/// runc goes on without when it may not write to the hierarchy, which it is told to expect
/// (`--rootless`). crun is told by an option, but refuses
/// to look at a hybrid hierarchy, so it sees none.
fn hide_cgroups(runtime: &Runtime) -> Result<(), ShimError> {
    let cgroups = Path::new("/sys/fs/cgroup");
    let failed = cannot("hide the cgroups from the runtime");
    if runtime.is_crun && cgroups.exists() {
        let empty = FileSystem::open("tmpfs").map_err(&failed)?;
        return attach_at(empty.mount(Attributes::default()).map_err(&failed)?, cgroups);
    }
    if cgroups.exists() {
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

fn arrange(
    plan: &Plan<'_>,
    ends: Ends,
    users: Option<OwnedFd>,
) -> Result<(Arrangement, Descriptors, Kept), ShimError> {
    let run = &plan.run;
    let mut arrangement = Arrangement::new(run.caller)?;
    let stdio = [
        arrangement.take(rustix::stdio::stdin())?,
        arrangement.take(rustix::stdio::stdout())?,
        arrangement.take(rustix::stdio::stderr())?,
    ];
    let entry_number = arrangement.take(&plan.entry)?;
    let socket = arrangement.take(&ends.entry)?;
    let user_namespace = users.map(|users| arrangement.take(users)).transpose()?;
    let moves = arrangement.to_move().to_vec();
    let descriptors = Descriptors { user_namespace, socket, stdio, close: Vec::new(), moves };
    let kept = Kept { progress: ends.progress, output: ends.output, entry_number };
    Ok((arrangement, descriptors, kept))
}

pub(crate) fn container_variables(run: &Run<'_>) -> Variables {
    variables(Sources {
        host: &run.request.host_env,
        image: &run.request.image.env,
        site: &run.config.environment,
        user: &run.request.env,
    })
}

/// The user's annotations, and what Sarus tells hooks about logging.
pub(crate) fn annotations(run: &Run<'_>, stdio: [i32; 3]) -> BTreeMap<String, String> {
    let mut annotations = run.request.annotations.clone();
    let command = run.request.command.args.iter().map(sarus_launch::RawString::to_string_lossy);
    // For hooks to say.
    annotations.remove(adopt::INJECTED);
    // The runtime starts a helper, so the bundle does not say it at the later stages.
    annotations
        .insert("com.hooks.command".to_owned(), json!(command.collect::<Vec<_>>()).to_string());
    let level = match run.request.verbosity {
        0 => 2,
        1 => 1,
        _ => 0,
    };
    // Numbers of descriptors are not for users to choose: they would be the runtime's.
    for (name, number) in [("stdoutfd", stdio[1]), ("stderrfd", stdio[2])] {
        annotations.insert(format!("com.hooks.logging.{name}"), number.to_string());
    }
    for (name, value) in [
        ("com.hooks.logging.level", level.to_string()),
        // crun would throw away what hooks say; this is where it says its own.
        ("run.oci.hooks.stderr", "/proc/self/fd/2".to_owned()),
        // crun would drop the supplementary groups.
        ("run.oci.keep_original_groups", "1".to_owned()),
    ] {
        annotations.entry(name.to_owned()).or_insert(value);
    }
    annotations
}

/// Writes block and bundle, and becomes the runtime.
fn finish(
    plan: &Plan<'_>,
    base: &Path,
    (mut spec, environment): (Value, &[Vec<u8>]),
    (mut arrangement, mut descriptors, kept): (Arrangement, Descriptors, Kept),
) -> Result<Infallible, ShimError> {
    let run = &plan.run;
    let arguments = bundle::final_arguments(&spec, run);
    // The block's own number is part of what it says, so its place is taken first.
    let placeholder = memfd_create("sarus-entry", MemfdFlags::CLOEXEC)
        .map_err(|e| cannot("write the block for `sarus-entry`")(e.into()))?;
    let number = arrangement.take(&placeholder)?;
    descriptors.close = arrangement.to_close();
    let block = Block {
        flags: flags(run),
        arguments: &arguments,
        environment,
        search_path: search_path(environment),
        descriptors: &descriptors,
        filters: &plan.filters,
    };
    block::write_to(&placeholder, &block, (run.caller, &run.caller.affinity))?;
    spec["process"]["args"] =
        json!([format!("/proc/self/fd/{}", kept.entry_number), number.to_string()]);
    watch::adapt(&mut spec, plan, (kept.entry_number, &base.join("rootfs")));
    write_bundle(base, &spec)?;
    let arguments = plan.runtime.arguments(base, arrangement.preserved(), plan);
    log::debug!("executing {arguments:?}");
    // Acting with the caller's rights has undone it: prctl(2), PR_SET_PDEATHSIG.
    die_with_supervisor(run.supervisor)?;
    release_signals()?;
    arrangement.establish(&kept.output)?;
    let path = plan.runtime.path.clone();
    let source = sarus_sys::process::execute(path.as_os_str(), &arguments, &Runtime::environment());
    Err(ShimError::ExecuteRuntime { path, source })
}

fn flags(run: &Run<'_>) -> u64 {
    let bits = [
        (run.mode == Mode::Rootless, flag::JOIN_USER_NAMESPACE),
        (run.request.tty, flag::TERMINAL),
        (run.request.init, flag::INIT),
    ];
    bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum()
}

pub(crate) fn search_path(environment: &[Vec<u8>]) -> &[u8] {
    let path = environment.iter().rev().find_map(|entry| entry.strip_prefix(b"PATH="));
    path.unwrap_or(sarus_launch::DEFAULT_PATH.as_bytes())
}

pub(crate) fn write_bundle(base: &Path, spec: &Value) -> Result<(), ShimError> {
    let path = base.join("bundle/config.json");
    #[expect(clippy::disallowed_methods, reason = "the file is in the run's own memory")]
    std::fs::write(&path, spec.to_string()).map_err(cannot("write the bundle"))
}

/// Opens `sarus-entry`, which is installed beside this program.
pub(crate) fn open_entry() -> Result<OwnedFd, ShimError> {
    let path = entry_path();
    let failed = |source| ShimError::NoEntry { path: path.clone(), source };
    open(&path, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty()).map_err(|e| failed(e.into()))
}

/// Where `sarus-entry` is installed.
pub(crate) fn entry_path() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_else(|_unknown| PathBuf::from("/"));
    own.with_file_name("sarus-entry")
}
