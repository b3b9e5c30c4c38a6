//! What the runs of one user and job share on a node, and how they find it.
//!
//! Rootless: two user namespaces, one for all runs of the job, and for each image and step a mount
//! namespace in which the image is mounted. Nobody owns them: every supervisor holds descriptors of
//! them, and a run that comes takes copies from any that lives. Which do, the kernel says: see
//! `sarus_sys::rendezvous`. When the last descriptor is closed the kernel takes all back.
//!
//! Privileged runs share a loop device instead, which the kernel keeps as long as it is mounted.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags, open};
use sarus_sys::namespace::{self, IdMap};
use sarus_sys::process::PidFd;
use sarus_sys::rendezvous::{Access, Holder, Rendezvous, place_of};
use sarus_sys::scratch::Scratch;

use crate::error::{ShimError, cannot};
use crate::image::{ImageFile, Lower, Run};
use crate::mode::{self, Mode};
use crate::{prepare, reports, rootfs};

/// The protocol between runs: who speaks another keeps to itself.
const PROTOCOL: u32 = 1;

/// Times that a door which closes on the way in is looked for again.
const ATTEMPTS_MAX: usize = 8;

/// Variables in which launchers name the job, and Slurm's for the step.
const JOBS: [&str; 4] = ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID"];
const STEP: &str = "SLURM_STEP_ID";

/// The surroundings of a run, ready for its own root file system. The process is in a mount
/// namespace of the run's own.
#[derive(Debug)]
pub(crate) struct Setup {
    /// A file system in memory, mounted here, holds what the run makes.
    pub(crate) base: PathBuf,
    /// The image's files, and what is laid over them for every container of the user.
    pub(crate) lower: Lower,
    /// The namespace in which the user has their own ids (rootless).
    pub(crate) own: Option<OwnedFd>,
    /// The base belongs to other runs too.
    pub(crate) shared: bool,
    /// The supervisor holds what is shared.
    pub(crate) is_reported: bool,
    /// This run made it; else it joined others.
    pub(crate) is_first: bool,
}

/// Where runs that may share meet.
#[derive(Debug, Clone)]
pub(crate) struct Meeting {
    /// The file: one for each user and job.
    pub(crate) name: String,
    /// The place in it: one for each image and step.
    pub(crate) place: u64,
}

/// Descriptors of what is shared, as a supervisor holds them.
#[derive(Debug)]
pub(crate) struct Door {
    /// Maps 0 to the user: here mounts are made.
    pub(crate) outer: OwnedFd,
    /// The user's own ids: here commands run.
    pub(crate) own: OwnedFd,
    /// Where the image is mounted; none when only the user namespaces are shared.
    pub(crate) mounts: Option<OwnedFd>,
}

impl Meeting {
    /// Where this run would meet others.
    pub(crate) fn of(run: &Run<'_>, image: &ImageFile) -> std::io::Result<Self> {
        let caller = run.caller;
        let variable = |name: &str| run.request.host_variable(name).map(|v| v.to_string_lossy());
        let job = JOBS.iter().find_map(|name| Some(format!("{name}={}", variable(name)?)));
        let job = match job {
            Some(job) => job,
            None => format!("session={}", sarus_sys::process::own_session()?),
        };
        let mut who = format!("{PROTOCOL} {} {} {job}", caller.uid, caller.gid);
        for kind in ["user", "mnt", "pid"] {
            who += &format!(" {}", namespace::own_number(kind)?);
        }
        let found = image.file().metadata()?;
        let (dev, ino, size) = (found.dev(), found.ino(), found.size());
        let (time, nanoseconds) = (found.mtime(), found.mtime_nsec());
        let step = variable(STEP).unwrap_or_default();
        let how = (run.config.image_mount, &run.config.squashfuse_path);
        let offset = image.offset();
        let what = format!("{dev} {ino} {offset} {size} {time} {nanoseconds} {step} {how:?}");
        let name = format!("v{PROTOCOL}-{:016x}", place_of(who.as_bytes()));
        Ok(Self { name, place: place_of(what.as_bytes()) })
    }
}

impl Door {
    /// The door that process `pid`, a supervisor of the caller's, holds open.
    ///
    /// It is looked at, not believed: the process must be of the caller's own user namespace, where
    /// no container's is, and the namespaces must be children of it that the caller made.
    fn of(pid: i32) -> std::io::Result<Self> {
        let refused = || std::io::Error::from_raw_os_error(libc::EPERM);
        let alive = PidFd::of(pid)?;
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let uid = rustix::process::getuid().as_raw();
        let home = namespace::own_number("user")?;
        if directory.join("ns/user").metadata()?.ino() != home || directory.metadata()?.uid() != uid
        {
            return Err(refused());
        }
        let held = Held::of(&directory)?;
        let is_child = |fd: &OwnedFd, of: u64| {
            let above = namespace::parent_of(fd.as_fd()).and_then(namespace::number);
            above.is_ok_and(|above| above == of)
                && namespace::owner_of(fd.as_fd()).is_ok_and(|owner| owner == uid)
        };
        let mut users = held.users;
        let at = users.values().position(|fd| is_child(fd, home)).ok_or_else(refused)?;
        let (number, outer) = take(&mut users, at).ok_or_else(refused)?;
        let at = users.values().position(|fd| is_child(fd, number)).ok_or_else(refused)?;
        let (_, own) = take(&mut users, at).ok_or_else(refused)?;
        let belongs = |fd: &OwnedFd| {
            let user = namespace::user_of(fd.as_fd()).and_then(namespace::number);
            user.is_ok_and(|user| user == number)
        };
        let mounts = held.mounts.into_values().find(belongs);
        if alive.has_ended()? { Err(refused()) } else { Ok(Self { outer, own, mounts }) }
    }
}

/// Namespaces that a process holds descriptors of, by number.
struct Held {
    users: BTreeMap<u64, OwnedFd>,
    mounts: BTreeMap<u64, OwnedFd>,
}

impl Held {
    fn of(directory: &Path) -> std::io::Result<Self> {
        let mut held = Self { users: BTreeMap::new(), mounts: BTreeMap::new() };
        for entry in std::fs::read_dir(directory.join("fd"))? {
            let path = entry?.path();
            let Ok(target) = std::fs::read_link(&path) else { continue };
            let Some((kind, number)) = target.to_str().and_then(parse_link) else { continue };
            let list = match kind {
                "user" => &mut held.users,
                "mnt" => &mut held.mounts,
                _ => continue,
            };
            let opened = open(&path, OFlags::RDONLY | OFlags::CLOEXEC, FileMode::empty())?;
            list.insert(number, opened);
        }
        Ok(held)
    }
}

/// `mnt:[4026531841]`, as `/proc/PID/fd` shows a namespace.
fn parse_link(target: &str) -> Option<(&str, u64)> {
    let (kind, number) = target.split_once(":[")?;
    Some((kind, number.strip_suffix(']')?.parse().ok()?))
}

fn take(list: &mut BTreeMap<u64, OwnedFd>, at: usize) -> Option<(u64, OwnedFd)> {
    let key = *list.keys().nth(at)?;
    list.remove_entry(&key)
}

/// Makes or joins the surroundings. The process must be a child of the supervisor, which hears of
/// what is shared over `supervisor`, to hold it.
pub(crate) fn enter(
    run: &Run<'_>,
    image: &ImageFile,
    supervisor: BorrowedFd<'_>,
) -> Result<Setup, ShimError> {
    match run.mode {
        Mode::Privileged => make_privileged(run, image),
        Mode::Rootless => match Meeting::of(run, image).and_then(|meeting| {
            let rendezvous = Rendezvous::open(&meeting.name)?;
            Ok((meeting, rendezvous))
        }) {
            Ok((meeting, rendezvous)) => meet(run, image, (supervisor, meeting, rendezvous)),
            Err(error) => {
                let level = match error.kind() {
                    std::io::ErrorKind::PermissionDenied => log::Level::Warn,
                    _ => log::Level::Info,
                };
                log::log!(level, "other runs cannot share the image's mount: {error}");
                let door = make_namespaces(run, None)?;
                fill(run, image, door, &mut |_, _| Ok(false))
            }
        },
    }
}

/// As [`enter`], without others: nobody joins this run, and it joins nobody.
pub(crate) fn enter_alone(run: &Run<'_>, image: &ImageFile) -> Result<Setup, ShimError> {
    if run.mode == Mode::Privileged {
        return make_privileged(run, image);
    }
    let door = make_namespaces(run, None)?;
    fill(run, image, door, &mut |_, _| Ok(false))
}

fn make_privileged(run: &Run<'_>, image: &ImageFile) -> Result<Setup, ShimError> {
    mode::enter_privileged()?;
    let base = rootfs::make_base(run, run.writable_size())?;
    let lower = image.mount(run, &base)?;
    let is_first = !lower.was_there;
    prepare::lay(run, &base, &lower.path)?;
    Ok(Setup { base, lower, own: None, shared: false, is_reported: false, is_first })
}

/// Joins the runs that are there, else opens a door for those to come.
fn meet(
    run: &Run<'_>,
    image: &ImageFile,
    (supervisor, meeting, mut rendezvous): (BorrowedFd<'_>, Meeting, Rendezvous),
) -> Result<Setup, ShimError> {
    let failed = cannot("look for other runs of the job");
    for _ in 0..ATTEMPTS_MAX {
        // Those who come do not wait for each other; who finds nobody comes again, alone.
        for access in [Access::Shared, Access::Exclusive] {
            rendezvous.enter(access).map_err(&failed)?;
            if let Some(holder) = rendezvous.holder(Some(meeting.place)).map_err(&failed)? {
                match door_of(holder) {
                    Some(door) if door.mounts.is_some() => {
                        return join(run, image, (door, supervisor, &meeting, &rendezvous));
                    }
                    // It ended just now, or is not to be joined.
                    _ => break,
                }
            }
            if access == Access::Exclusive {
                let anybody = rendezvous.holder(None).map_err(&failed)?;
                let users = anybody.and_then(door_of);
                let door = make_namespaces(run, users)?;
                return fill(run, image, door, &mut |door, lower| {
                    publish(door, lower, (supervisor, &meeting, &rendezvous)).map(|()| true)
                });
            }
            rendezvous.exit().map_err(&failed)?;
        }
        rendezvous.exit().map_err(&failed)?;
    }
    log::info!("other runs of the job cannot be joined: this one shares nothing");
    let door = make_namespaces(run, None)?;
    fill(run, image, door, &mut |_, _| Ok(false))
}

fn door_of(holder: Holder) -> Option<Door> {
    let Holder::Process(pid) = holder else { return None };
    Door::of(pid).inspect_err(|error| log::debug!("process {pid} is no door: {error}")).ok()
}

/// Has the supervisor hold what is shared, and lets others in.
fn publish(
    door: &Door,
    lower: &Lower,
    (supervisor, meeting, rendezvous): (BorrowedFd<'_>, &Meeting, &Rendezvous),
) -> Result<(), ShimError> {
    let meeting = (rendezvous.path(), meeting.place);
    reports::report_door(supervisor, meeting, (door, lower))?;
    rendezvous.exit().map_err(cannot("let other runs in"))
}

/// Becomes a member of what others made.
fn join(
    run: &Run<'_>,
    image: &ImageFile,
    (door, supervisor, meeting, rendezvous): (Door, BorrowedFd<'_>, &Meeting, &Rendezvous),
) -> Result<Setup, ShimError> {
    let failed = cannot("join the other runs of the job");
    namespace::join_user(door.outer.as_fd()).map_err(&failed)?;
    if let Some(mounts) = &door.mounts {
        namespace::join(mounts.as_fd()).map_err(&failed)?;
    }
    let base = rootfs::find_base(run)?;
    let lower = Lower::read(&base)?;
    // Asked of the server itself, whatever the kernel remembers.
    if let Err(error) = rustix::fs::statvfs(&lower.path) {
        // Its server was killed. What the others have of it is theirs.
        log::info!("the image that another run mounted cannot be read: {error}");
        rendezvous.exit().map_err(&failed)?;
        namespace::new_mount_namespace().map_err(&failed)?;
        sarus_sys::mount::detach(&base).map_err(&failed)?;
        return fill(run, image, door, &mut |_, _| Ok(false));
    }
    publish(&door, &lower, (supervisor, meeting, rendezvous))?;
    namespace::new_mount_namespace().map_err(&failed)?;
    log::info!("the image was mounted by another run of the job");
    Ok(Setup { base, lower, own: Some(door.own), shared: true, is_reported: true, is_first: false })
}

/// The user namespaces, those of other runs where given, and a new mount namespace. The process is
/// in the outer one.
fn make_namespaces(run: &Run<'_>, users: Option<Door>) -> Result<Door, ShimError> {
    let caller = run.caller;
    let own_kind = |kind| namespace::own(kind).map_err(cannot("open a namespace"));
    let (outer, own) = match users {
        Some(Door { outer, own, .. }) => {
            let failed = cannot("join the other runs of the job");
            namespace::join_user(outer.as_fd()).map_err(&failed)?;
            namespace::new_mount_namespace().map_err(&failed)?;
            (outer, own)
        }
        None => {
            let uid = IdMap { inside: 0, outside: caller.uid };
            let gid = IdMap { inside: 0, outside: caller.gid };
            namespace::new_user_and_mount_namespace(uid, gid).map_err(mode::no_user_namespace)?;
            (own_kind("user")?, mode::users_own_namespace(caller)?)
        }
    };
    sarus_sys::mount::receive_only().map_err(cannot("separate the mounts from the host's"))?;
    Ok(Door { outer, own, mounts: Some(own_kind("mnt")?) })
}

/// Mounts the image and what goes over it, hands out what others need, and goes on in a mount
/// namespace of the run's own.
fn fill(
    run: &Run<'_>,
    image: &ImageFile,
    door: Door,
    publish: &mut dyn FnMut(&Door, &Lower) -> Result<bool, ShimError>,
) -> Result<Setup, ShimError> {
    let base = rootfs::make_base(run, None)?;
    let lower = image.mount(run, &base)?;
    prepare::lay(run, &base, &lower.path)?;
    lower.write(&base)?;
    let is_reported = publish(&door, &lower)?;
    namespace::new_mount_namespace().map_err(cannot("make a mount namespace"))?;
    Ok(Setup { base, lower, own: Some(door.own), shared: true, is_reported, is_first: true })
}

/// What a supervisor holds of the shared surroundings, until its run has ended.
#[derive(Debug)]
pub(crate) struct Membership {
    rendezvous: Rendezvous,
    place: u64,
    door: Vec<OwnedFd>,
}

impl Membership {
    /// Takes the place, so that others find this process.
    pub(crate) fn take(file: PathBuf, place: u64, door: Vec<OwnedFd>) -> std::io::Result<Self> {
        let rendezvous = Rendezvous::reopen(file)?;
        rendezvous.take(place)?;
        Ok(Self { rendezvous, place, door })
    }

    /// Gives it up. True when nobody is left who uses the image's mount.
    pub(crate) fn leave(self) -> bool {
        drop(self.door);
        self.rendezvous.leave(self.place).unwrap_or_else(|error| {
            log::debug!("cannot leave the other runs: {error}");
            false
        })
    }
}

/// A directory on disk with the unpacked image, which the run holds with others.
pub(crate) fn hold_scratch(path: &Path) -> Result<Scratch, ShimError> {
    Scratch::hold(path).map_err(cannot("hold the directory with the unpacked image"))
}

/// The first bytes of a small file of ours.
pub(crate) fn read_small(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, 8192), &mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_told_from_other_descriptors() {
        for (link, want) in [
            ("mnt:[4026531841]", Some(("mnt", 4_026_531_841))),
            ("user:[7]", Some(("user", 7))),
            ("socket:[7]", Some(("socket", 7))),
            ("/tmp/mnt:[x]", None),
            ("/memfd:sarus (deleted)", None),
        ] {
            assert_eq!(parse_link(link), want, "{link}");
        }
    }

    #[test]
    fn no_process_without_the_namespaces_is_a_door() {
        let own = i32::try_from(std::process::id()).unwrap();
        for pid in [own, 1, -1, i32::MAX] {
            assert!(Door::of(pid).is_err(), "{pid}");
        }
    }
}
