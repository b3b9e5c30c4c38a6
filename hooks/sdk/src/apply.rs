//! Carries a plan out in the container's mount namespace, by descriptor.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, StatVfsMountFlags, fstat, fstatvfs, open, openat, symlinkat,
    unlinkat,
};
use sarus_sys::identity::{self, with_rights_of};
use sarus_sys::mount::{Attributes, DetachedMount};
use sarus_sys::root::{Kind, Root};

use crate::{Container, Failure, Plan, Step, ld_cache};

/// The dynamic loader's cache.
const LD_CACHE: &str = "/etc/ld.so.cache";

/// Largest cache that is read, in bytes.
const LD_CACHE_SIZE_MAX: u64 = 64 << 20;

/// Applies all steps, then what the hook does itself. At the stage `precreate` the edited
/// configuration holds most of them already.
pub(crate) fn apply(container: &Container, plan: &mut Plan) -> Result<(), Failure> {
    for planned in &plan.steps {
        let is_in_root = matches!(planned.step, Step::Link { .. } | Step::LdCache { .. });
        if is_in_root || !container.is_precreate() {
            step(container, &planned.step)?;
        }
    }
    plan.acts.drain(..).try_for_each(|act| act())
}

/// Applies one step.
fn step(container: &Container, step: &Step) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot {step}")).because(error);
    match step {
        Step::Bind { source, destination, read_only } => {
            let mount = open_tree(container, source, *read_only).map_err(failed)?;
            attach(container, mount, destination)?.map_err(failed)
        }
        Step::Device { source, destination, access } => {
            let mount = open_device(container, source).map_err(failed)?;
            allow(container, source, access);
            attach(container, mount, destination)?.map_err(failed)
        }
        Step::Link { target, destination } => link(container, target, destination)?.map_err(failed),
        Step::LdCache { libraries } => add_to_ld_cache(container, libraries)?.map_err(failed),
        Step::Action { .. } => Ok(()),
        Step::Variable { .. }
        | Step::Group { .. }
        | Step::Annotation { .. }
        | Step::Hook { .. }
        | Step::Configuration { .. } => Err(Failure::new(format!("cannot {step}"))
            .because("the runtime has read the container's configuration already")
            .hint("name the stage `precreate` in the hook's file")),
    }
}

/// Sources are opened with the user's rights, as those of mounts at `precreate` are: nothing behind
/// a directory that is closed to the user comes into the container.
fn open_source(container: &Container, source: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    as_user(container, || Ok(open(source, flags, Mode::empty())?))
}

fn open_tree(
    container: &Container,
    source: &Path,
    read_only: bool,
) -> std::io::Result<DetachedMount> {
    let found = open_source(container, source)?;
    let mount = DetachedMount::copy_of_descriptor(found.as_fd())?;
    mount.restrict(Attributes { read_only, no_suid: true, no_dev: true, no_exec: false })?;
    Ok(mount)
}

fn open_device(container: &Container, source: &Path) -> std::io::Result<DetachedMount> {
    let found = open_source(container, source)?;
    let kind = FileType::from_raw_mode(fstat(&found)?.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(std::io::Error::other("it is not a device node"));
    }
    DetachedMount::copy_of_descriptor(found.as_fd())
}

fn attach(
    container: &Container,
    mount: DetachedMount,
    destination: &Path,
) -> Result<std::io::Result<()>, Failure> {
    let root = container.root()?;
    let attach = || {
        let is_directory = FileType::from_raw_mode(fstat(&mount)?.st_mode) == FileType::Directory;
        let kind = if is_directory { Kind::Directory } else { Kind::File };
        let target = match writable(root)? {
            Some(copy) => {
                ensure(container, Root(copy.as_fd()), destination, kind)?;
                root.resolve(destination)?
            }
            None => ensure(container, root, destination, kind)?,
        };
        mount.attach(target.as_fd())
    };
    Ok(attach())
}

/// A copy of the container's root that may be written to, where the root is read-only: crun makes
/// it so before the stage `createContainer`, although hooks have yet to make the places for mounts.
fn writable(root: Root<'_>) -> std::io::Result<Option<DetachedMount>> {
    if !fstatvfs(root.0)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(None);
    }
    let copy = DetachedMount::copy_of_descriptor(root.0)?;
    copy.allow_writes()?;
    Ok(Some(copy))
}

/// Finds a place in the container, or makes it: with the user's rights, where those do not
/// suffice in the container's own layer and in its `/dev` only. So no directory of the host that
/// the user mounted gets a file that they could not have made.
fn ensure(
    container: &Container,
    root: Root<'_>,
    path: &Path,
    kind: Kind,
) -> std::io::Result<OwnedFd> {
    let person = container.person();
    let person = identity::Person { uid: person.uid, gid: person.gid };
    match with_rights_of(person, || root.ensure(path, kind))? {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        found => return found,
    }
    if let Ok(below) = path.strip_prefix("/dev") {
        let dev = root.devices()?;
        return Root(dev.as_fd()).ensure_in_layer(below, kind, person);
    }
    root.ensure_in_layer(path, kind, person)
}

/// On a hierarchy of version 1 the container's cgroup learns of the device, as with Sarus 1.7;
/// on version 2 no hook can widen what the runtime allowed.
fn allow(container: &Container, source: &Path, access: &str) {
    let Some(pid) = container.state().and_then(|state| state.pid) else { return };
    // At `createContainer` a runtime says the id that the process has inside: here it is another's.
    if !crate::enter::proc_is_own()
        || rustix::process::getppid().map(rustix::process::Pid::as_raw_pid) == Some(pid)
    {
        return;
    }
    let attempt = || -> Option<()> {
        let cgroups = |pid: &str| {
            let mut text = String::new();
            let mut file = std::fs::File::open(format!("/proc/{pid}/cgroup")).ok()?;
            file.read_to_string(&mut text).ok().map(|_size| text)
        };
        let devices = |text: String| {
            let of = |line: &str| {
                let mut fields = line.splitn(3, ':').skip(1);
                let controllers = fields.next()?;
                let path = fields.next()?;
                controllers.split(',').any(|name| name == "devices").then(|| path.to_owned())
            };
            text.lines().find_map(of)
        };
        let theirs = cgroups(&pid.to_string()).and_then(devices)?;
        // What is shared with the hook's caller was not made for the container.
        if cgroups("self").and_then(devices)? == theirs {
            return None;
        }
        let device = std::fs::metadata(source).ok()?;
        let letter = if device.file_type().is_block_device() { 'b' } else { 'c' };
        let number = device.rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let file = Path::new("/sys/fs/cgroup/devices")
            .join(theirs.trim_start_matches('/'))
            .join("devices.allow");
        let rule = format!("{letter} {major}:{minor} {access}");
        log::debug!("writing `{rule}` to `{}`", file.display());
        let written = std::fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|mut file| file.write_all(rule.as_bytes()));
        if let Err(error) = written {
            log::debug!("`{}`: {error}", file.display());
        }
        Some(())
    };
    if attempt().is_none() {
        log::debug!("the container has no device cgroup of its own");
    }
}

/// The directory that holds a path, opened in the root, and the path's last component.
fn parent_of(
    container: &Container,
    root: Root<'_>,
    path: &Path,
) -> std::io::Result<(OwnedFd, PathBuf)> {
    let invalid = || std::io::Error::from_raw_os_error(libc::EINVAL);
    let Some(Component::Normal(name)) = path.components().next_back() else {
        return Err(invalid());
    };
    let above = path.parent().ok_or_else(invalid)?;
    Ok((ensure(container, root, above, Kind::Directory)?, PathBuf::from(name)))
}

fn as_user<T>(
    container: &Container,
    act: impl FnOnce() -> std::io::Result<T>,
) -> std::io::Result<T> {
    let person = container.person();
    with_rights_of(identity::Person { uid: person.uid, gid: person.gid }, act)?
}

fn link(
    container: &Container,
    target: &Path,
    destination: &Path,
) -> Result<std::io::Result<()>, Failure> {
    let root = container.root()?;
    let make = || {
        let copy = writable(root)?;
        let root = copy.as_ref().map_or(root, |copy| Root(copy.as_fd()));
        let (directory, name) = parent_of(container, root, destination)?;
        as_user(container, || {
            if let Ok(old) = rustix::fs::readlinkat(&directory, &name, Vec::new()) {
                if old.as_bytes() == target.as_os_str().as_encoded_bytes() {
                    return Ok(());
                }
                unlinkat(&directory, &name, AtFlags::empty())?;
            }
            Ok(symlinkat(target, &directory, &name)?)
        })
    };
    Ok(make())
}

/// Replaces the loader's cache by one that has the libraries too. The file is the user's, like
/// all in the container, and is written with the user's rights.
fn add_to_ld_cache(
    container: &Container,
    libraries: &[(String, PathBuf)],
) -> Result<std::io::Result<()>, Failure> {
    let root = container.root()?;
    let libraries = libraries.to_vec();
    let changed = container.survey(move |root| {
        let mut old = Vec::new();
        let read = root
            .open_file(Path::new(LD_CACHE))
            .and_then(|file| file.take(LD_CACHE_SIZE_MAX).read_to_end(&mut old));
        match read {
            Ok(_size) => ld_cache::add(&old, &libraries).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    })?;
    let changed = match changed {
        Ok(Some(changed)) => changed,
        Ok(None) => {
            log::info!("the image has no `{LD_CACHE}`: its loader finds libraries without");
            return Ok(Ok(()));
        }
        Err(reason) => {
            let what = format!("cannot read the container's `{LD_CACHE}`");
            return Err(Failure::new(what).because(reason));
        }
    };
    let write = || {
        let copy = writable(root)?;
        let root = copy.as_ref().map_or(root, |copy| Root(copy.as_fd()));
        let (directory, name) = parent_of(container, root, Path::new(LD_CACHE))?;
        as_user(container, || {
            let aside = format!(".{}.{}", name.display(), std::process::id());
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(&directory, &aside, flags, Mode::from_raw_mode(0o644))?;
            std::fs::File::from(file).write_all(&changed)?;
            Ok(rustix::fs::renameat(&directory, &aside, &directory, &name)?)
        })
    };
    Ok(write())
}
