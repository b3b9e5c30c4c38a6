//! AMD GPUs: the kernel's nodes. The libraries (ROCm) are the image's own.
//!
//! Which GPUs, says `ROCR_VISIBLE_DEVICES`: <https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html>.
//! `look` reads the host, `steps` plans and does no I/O.

use std::fs::OpenOptions;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sarus_hook::{Container, Failure, Person, Plan, Step};

use crate::host::{Found, Host, RealHost, below};
use crate::settings::Settings;

/// The node by which all AMD GPUs are used for computing.
const KFD: &str = "/dev/kfd";

/// What the kernel says of processors that can compute.
const TOPOLOGY: &str = "/sys/class/kfd/kfd/topology/nodes";

/// The GPUs of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct HostGpus {
    kfd: Access,
    gpus: Vec<Gpu>,
}

/// Who may use a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Access {
    gid: u32,
    /// Anyone may read and write.
    is_everyones: bool,
}

/// One GPU that the job may use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Gpu {
    /// `GPU-` and 16 hexadecimal digits; some have none.
    uuid: Option<String>,
    render: PathBuf,
    card: Option<PathBuf>,
    access: Access,
}

/// Plans the GPUs that the container's variables ask for.
///
/// # Errors
///
/// Where the node has not what is asked for.
pub(crate) fn plan(
    container: &Container,
    settings: &Settings,
    plan: &mut Plan,
) -> Result<(), Failure> {
    let root = &settings.host_root;
    let Some(host) = look(root) else {
        plan.note("no AMD GPU: there is no /dev/kfd");
        return Ok(());
    };
    let wanted = container.variable("ROCR_VISIBLE_DEVICES");
    let selected = select(wanted, &host.gpus)?;
    let is_renumbered = container.is_precreate();
    steps(root, &host, &selected, plan);
    if let Some(list) =
        wanted.filter(|_| is_renumbered).and_then(|list| renumbered(list, &selected))
    {
        plan.step(
            Step::variable("ROCR_VISIBLE_DEVICES", list),
            "inside, the job's GPUs are numbered from 0",
        );
    }
    let accesses = selected.iter().map(|(_, gpu)| gpu.access).chain([host.kfd]);
    if !selected.is_empty() {
        groups(accesses, &container.person(), settings.add_groups && is_renumbered, plan);
    }
    Ok(())
}

/// The GPUs asked for, each with the place at which it is in the list of all.
fn select<'g>(wanted: Option<&str>, gpus: &'g [Gpu]) -> Result<Vec<(usize, &'g Gpu)>, Failure> {
    let Some(wanted) = wanted else { return Ok(gpus.iter().enumerate().collect()) };
    let mut selected = Vec::new();
    for id in wanted.split(',').map(str::trim).take_while(|id| !id.starts_with('-')) {
        if id.is_empty() {
            continue;
        }
        let is_it = |(index, gpu): &(usize, &Gpu)| {
            id.parse() == Ok(*index)
                || gpu.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(id))
        };
        let Some(found) = gpus.iter().enumerate().find(is_it) else {
            return Err(unknown(id, gpus));
        };
        if !selected.contains(&found) {
            selected.push(found);
        }
    }
    Ok(selected)
}

fn unknown(id: &str, gpus: &[Gpu]) -> Failure {
    let mut failure = Failure::new(format!("this node has no AMD GPU `{id}`"));
    if gpus.is_empty() {
        failure = failure.because("the kernel shows none to this job");
    }
    for (index, gpu) in gpus.iter().enumerate() {
        let uuid = gpu.uuid.as_deref().unwrap_or("no UUID");
        failure =
            failure.because(format!("there is GPU {index}: {uuid}, {}", gpu.render.display()));
    }
    failure.hint("ROCR_VISIBLE_DEVICES lists GPUs by index or UUID; the job's launcher, the image or `-e` sets it")
}

/// The value of the variable inside, where only the selected GPUs are seen: in the order of the
/// host, which the list may not keep. `None` if it stays as it is.
fn renumbered(list: &str, selected: &[(usize, &Gpu)]) -> Option<String> {
    let is_number = |id: &str| id.trim().bytes().all(|byte| byte.is_ascii_digit());
    if selected.is_empty() || !list.split(',').all(is_number) {
        return None;
    }
    let mut places: Vec<usize> = selected.iter().map(|(index, _)| *index).collect();
    places.sort_unstable();
    let inside = |(index, _): &(usize, &Gpu)| places.iter().position(|place| place == index);
    let inside: Vec<String> =
        selected.iter().filter_map(inside).map(|number| number.to_string()).collect();
    Some(inside.join(",")).filter(|inside| inside != list)
}

fn steps(root: &Path, host: &HostGpus, selected: &[(usize, &Gpu)], plan: &mut Plan) {
    if selected.is_empty() {
        let count = host.gpus.len();
        plan.note(format!(
            "no AMD GPU: the job may use {count}, and ROCR_VISIBLE_DEVICES asks for none"
        ));
        return;
    }
    let device = |path: &Path| Step::Device {
        source: below(root, path),
        destination: path.to_owned(),
        access: "rw".to_owned(),
    };
    plan.step(device(Path::new(KFD)), "the node by which AMD GPUs compute");
    for (index, gpu) in selected {
        let uuid = gpu.uuid.as_deref().unwrap_or("without a UUID");
        let reason = format!("AMD GPU {index} ({uuid})");
        for path in gpu.card.iter().chain([&gpu.render]) {
            plan.step(device(path), &reason);
        }
    }
}

/// Nodes may belong to a group. The container has the groups of its user; others are given only
/// where the site says so, since a user who has not the group may not use the GPU outside either.
fn groups(accesses: impl Iterator<Item = Access>, person: &Person, may_add: bool, plan: &mut Plan) {
    let mut gids: Vec<u32> = accesses
        .filter(|access| !access.is_everyones && access.gid != 0)
        .map(|access| access.gid)
        .filter(|gid| *gid != person.gid && !person.groups.contains(gid))
        .collect();
    gids.sort_unstable();
    gids.dedup();
    for gid in gids {
        if may_add {
            plan.step(Step::Group { gid }, "the AMD GPU's nodes belong to this group");
        } else {
            plan.note(format!(
                "the AMD GPU's nodes belong to group {gid}: only its members may use them"
            ));
        }
    }
}

/// Reads the host below `root`; `None` without `/dev/kfd`.
fn look(root: &Path) -> Option<HostGpus> {
    let kfd = access(root, Path::new(KFD))?;
    let nodes = Path::new(TOPOLOGY);
    let mut numbers: Vec<u32> =
        RealHost.names(&below(root, nodes)).iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    let described = numbers.iter().filter_map(|number| {
        let path = nodes.join(number.to_string()).join("properties");
        let text = fs_err::read_to_string(below(root, &path)).ok()?;
        let minor = property(&text, "drm_render_minor").filter(|minor| *minor > 0)?;
        let uuid = property(&text, "unique_id").filter(|id| *id != 0);
        Some((format!("renderD{minor}"), uuid.map(|id| format!("GPU-{id:016x}"))))
    });
    let mut renders: Vec<(String, Option<String>)> = described.collect();
    if numbers.is_empty() {
        // An old kernel does not say more than the names.
        let names = RealHost.names(&below(root, Path::new("/dev/dri")));
        let names = names.into_iter().filter(|name| name.starts_with("renderD"));
        renders = names.map(|name| (name, None)).collect();
    }
    let gpus = renders.into_iter().filter_map(|(name, uuid)| gpu(root, &name, uuid));
    Some(HostGpus { kfd, gpus: gpus.collect() })
}

/// A number in the text of a topology node.
fn property(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// A GPU, if this process may open it: others are not counted, as by the runtime of ROCm.
fn gpu(root: &Path, name: &str, uuid: Option<String>) -> Option<Gpu> {
    let render = Path::new("/dev/dri").join(name);
    let rights = access(root, &render)?;
    let opened = OpenOptions::new().read(true).write(true).open(below(root, &render));
    // A device cgroup says this; without the group, the user is told later.
    if opened
        .is_err_and(|error| error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error()))
    {
        return None;
    }
    let beside = Path::new("/sys/class/drm").join(name).join("device/drm");
    let cards = RealHost.names(&below(root, &beside));
    let card = cards.iter().find(|name| name.starts_with("card"));
    let card = card.map(|name| Path::new("/dev/dri").join(name));
    let card = card.filter(|path| access(root, path).is_some());
    Some(Gpu { uuid, render, card, access: rights })
}

/// Who may use a device node; `None` if it is none.
fn access(root: &Path, path: &Path) -> Option<Access> {
    let path = below(root, path);
    let Some(Found::Device { .. }) = RealHost.look(&path) else { return None };
    let found = std::fs::metadata(path).ok()?;
    Some(Access { gid: found.gid(), is_everyones: found.mode() & 0o006 == 0o006 })
}

#[cfg(test)]
mod tests;
