//! From a launch request to a running container: what is decided, and who is started.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use sarus_config::{Config, SYSTEM_CONFIG, check_trusted, config_home, load_for_user, load_system};
use sarus_launch::Request;
use sarus_sys::identity::{become_person, show_to_person, with_rights_of};
use sarus_sys::process::{Fork, fork};
use sarus_sys::rendezvous::{Holder, Rendezvous, place_of};
use sarus_sys::signals::SignalReader;

use crate::caller::Caller;
use crate::channel::Channel;
use crate::construct::{Ends, Plan, construct, open_entry};
use crate::error::{ShimError, cannot};
use crate::forward::{Forwarder, Left};
use crate::image::{ImageFile, Run};
use crate::janitor::Lines;
use crate::ledger::Ledger;
use crate::mode::{self, Mode};
use crate::supervise::{Charge, OurEnds, Supervisor};
use crate::{hooks, runtime, scratch, seccomp};

/// The file in which the names of a user's containers are places.
const NAMES: &str = "names";

/// Annotations that OCI runtimes obey: with privilege they are not for users to set.
const RUNTIMES_OWN: [&str; 4] = ["run.oci.", "module.wasm.", "org.criu.", "org.systemd."];

/// Runs a container and returns the exit status of its command.
pub(crate) fn run(caller: &Caller, request: &Request) -> Result<i32, ShimError> {
    let (image, config, (mode, _why)) = configure(caller, request)?;
    let ledger = Ledger::default();
    let supervisor = rustix::process::getpid().as_raw_nonzero().get();
    let run = Run { caller, request, config: &config, mode, ledger: &ledger, supervisor };
    let plan = plan(run, image)?;
    let name = claim_name(&plan)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| cannot("become the parent of orphans")(e.into()))?;
    let signals = SignalReader::open().map_err(cannot("read signals"))?;
    let lines = Lines::lay(&plan)?;
    let (lines, instructions) = lines.map_or((None, None), |(lines, i)| (Some(lines), Some(i)));
    let (ours, theirs) = connect()?;
    match fork().map_err(cannot("make a process"))? {
        Fork::Child => {
            drop((ours, signals, lines, name));
            match construct(&plan, theirs, instructions.as_ref())? {}
        }
        Fork::Parent(builder) => {
            drop((theirs, instructions));
            let builder = builder.as_raw_pid();
            let janitor = lines.map(|lines| lines.start(&plan, builder)).transpose()?;
            if caller.is_setuid() && mode == Mode::Privileged {
                give_up_privileges(caller)?;
            }
            let forwarder =
                Forwarder::start(&Left { scratch: scratch::parents(&run), session: None })?;
            let mut supervisor =
                Supervisor::new(Charge::Container(&plan), (signals, ours, forwarder), builder);
            supervisor.set_janitor(janitor);
            supervisor.spare(&caller.children);
            let result = supervisor.watch();
            supervisor.clean_up();
            if let Some((names, place)) = name {
                let _left_for_the_next_command = names.leave(place);
            }
            result
        }
    }
}

/// The supervisor needs none: it waits and signals, which the user may do too.
pub(crate) fn give_up_privileges(caller: &Caller) -> Result<(), ShimError> {
    caller
        .restore_limits()
        .and_then(|()| become_person(caller.person()))
        .and_then(|()| show_to_person())
        .map_err(|source| ShimError::Privileges { source })
}

/// The image, the configuration, and the mode that they and the node lead to. A setuid program that
/// is to run rootless gives its privileges up here, before it reads anything of the user's.
pub(crate) fn configure(
    caller: &Caller,
    request: &Request,
) -> Result<(ImageFile, Config, (Mode, String)), ShimError> {
    let failed = |source| ShimError::Config { source };
    let site = Path::new(SYSTEM_CONFIG);
    let image = open_image(caller, request)?;
    let mut parsed = load_site(site)?;
    let (mode, why) = mode::choose(&parsed.config, (caller, request), image.as_ref());
    if mode == Mode::Rootless {
        if caller.is_setuid() {
            give_up_privileges(caller)?;
            log::info!("`sarus-shim` is setuid root and gave the privilege up");
        }
        let variable = |name: &str| std::env::var_os(name);
        let home = config_home(variable("XDG_CONFIG_HOME").as_deref(), variable("HOME").as_deref());
        parsed = load_for_user(site, home.as_deref()).map_err(failed)?;
    }
    for note in &parsed.notes {
        log::info!("{note}");
    }
    let image = image.map_or_else(|| ImageFile::open(request), Ok)?;
    Ok((image, parsed.config, (mode, why)))
}

/// The image, opened with the caller's rights; none where it may be for those only whose every id is
/// the user's, as a FUSE file system of the user's is (`allow_other` in `mount.fuse(8)`).
fn open_image(caller: &Caller, request: &Request) -> Result<Option<ImageFile>, ShimError> {
    let opened = with_rights_of(caller.person(), || ImageFile::open(request))
        .map_err(|source| ShimError::Privileges { source })?;
    match opened {
        Err(ShimError::OpenImage { source, .. })
            if caller.is_setuid() && source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

/// With privilege the file must be root's alone before a byte of it is believed. Whether that is
/// checked is said in the file itself, so it is checked first and the answer used afterwards.
pub(crate) fn load_site(site: &Path) -> Result<sarus_config::Parsed, ShimError> {
    let failed = |source| ShimError::Config { source };
    let is_root = rustix::process::geteuid().is_root();
    let trusted = if is_root && site.exists() { check_trusted(site) } else { Ok(()) };
    let parsed = load_system(site).map_err(failed)?;
    match trusted {
        Err(source) if parsed.config.security_checks => Err(failed(source)),
        _ => Ok(parsed),
    }
}

pub(crate) fn plan(run: Run<'_>, image: ImageFile) -> Result<Plan<'_>, ShimError> {
    check_wishes(&run)?;
    let runtime = runtime::find(run.config, run.request)?;
    if run.mode == Mode::Privileged && run.config.security_checks {
        let mut paths = run.config.paths_to_check();
        paths.push(runtime.path.clone());
        let checked = paths.iter().try_for_each(|path| check_trusted(path));
        checked.map_err(|source| ShimError::Config { source })?;
    }
    let hooks = hooks::select(&run)?;
    let id = run.request.name.clone().unwrap_or_else(|| format!("sarus-{}", run.supervisor));
    let filters = seccomp::filters(run.config)?;
    Ok(Plan { run, runtime, image, entry: open_entry()?, hooks, filters, id })
}

/// What users may not choose for what runs as root.
fn check_wishes(run: &Run<'_>) -> Result<(), ShimError> {
    if run.mode == Mode::Rootless || !run.caller.is_setuid() {
        return Ok(());
    }
    let request = run.request;
    if let Some(path) = request.runtime.as_deref().filter(|given| given.contains('/')) {
        return Err(ShimError::RuntimeRefused { path: path.into() });
    }
    let is_runtimes = |key: &&String| RUNTIMES_OWN.iter().any(|prefix| key.starts_with(prefix));
    match request.annotations.keys().find(is_runtimes) {
        Some(key) => Err(ShimError::AnnotationRefused { key: key.clone() }),
        None => Ok(()),
    }
}

/// Takes the container's name, which no other running container of the user may have.
fn claim_name(plan: &Plan<'_>) -> Result<Option<(Rendezvous, u64)>, ShimError> {
    let Some(name) = &plan.run.request.name else { return Ok(None) };
    let place = place_of(name.as_bytes());
    let claim = || {
        let mut names = Rendezvous::open(NAMES)?;
        names.enter(sarus_sys::rendezvous::Access::Shared)?;
        let free = names.claim(place)?;
        let holder = if free { None } else { names.holder(Some(place))? };
        names.exit()?;
        Ok((names, free, holder))
    };
    let claimed = with_rights_of(plan.run.caller.person(), claim)
        .and_then(|claimed: std::io::Result<_>| claimed)
        .map_err(cannot("take the container's name"))?;
    match claimed {
        (names, true, _) => Ok(Some((names, place))),
        (_, false, holder) => {
            let pid = match holder {
                Some(Holder::Process(pid)) => Some(pid),
                _ => None,
            };
            Err(ShimError::NameTaken { name: name.clone(), pid })
        }
    }
}

/// A file in memory for what a runtime and its hooks say. They have descriptors of their own for
/// it, so that each has to write at the end.
pub(crate) fn shared_output() -> Result<OwnedFd, ShimError> {
    let failed = |e: rustix::io::Errno| cannot("make a file in memory")(e.into());
    let output = memfd_create("runtime", MemfdFlags::CLOEXEC).map_err(failed)?;
    rustix::fs::fcntl_setfl(&output, OFlags::APPEND).map_err(failed)?;
    Ok(output)
}

/// Connects supervisor and builder.
pub(crate) fn connect() -> Result<(OurEnds, Ends), ShimError> {
    let failed = |e: rustix::io::Errno| cannot("make a socket")(e.into());
    let pair = || {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed)
    };
    let (entry, theirs) = pair()?;
    let (progress, report): (OwnedFd, OwnedFd) = pair()?;
    let output = shared_output()?;
    let copy = output.try_clone().map_err(cannot("copy a descriptor"))?;
    let ends = Ends { entry: theirs, progress: report, output: copy };
    Ok((OurEnds { entry: Channel::new(entry)?, progress, output }, ends))
}
