//! The root file system: image below, writable layer above, and what every container has.
//!
//! All of it is made in file systems in memory that cover one directory in mount namespaces of the
//! user's runs, so that nothing is written on the host and nothing is left.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode as FileMode, OFlags, chmodat, mknodat, open, symlinkat,
};
use sarus_sys::mount::{Attributes, DetachedMount, FileSystem};
use sarus_sys::root::{Kind, Root, make_in};
use sarus_sys::scratch::Scratch;

use crate::error::{MEMORY, ShimError, cannot};
use crate::image::{Run, attach_at};
use crate::ledger::Entry;
use crate::mode::Mode;
use crate::prepare::{self, make_directory};
use crate::scratch;
use crate::setup::Setup;

/// Directories of which one is covered in the run's mount namespace: the first that is empty, else
/// the last there is.
const COVERED: [&str; 8] =
    ["/run/sarus", "/mnt", "/media", "/srv", "/opt", "/var/opt", "/var/local", "/usr/local/games"];

/// Covers a directory with a file system in memory, of at most `size` bytes, and returns its path.
pub(crate) fn make_base(run: &Run<'_>, size: Option<u64>) -> Result<PathBuf, ShimError> {
    let base = choose_base(run)?;
    attach_at(memory(size)?, &base)?;
    for name in ["image", "run"] {
        make_directory(&base.join(name), 0o755)?;
    }
    log::debug!("what is made for the container is in memory, mounted on `{}`", base.display());
    Ok(base)
}

/// The base of other runs, in whose mount namespace the process is.
pub(crate) fn find_base(run: &Run<'_>) -> Result<PathBuf, ShimError> {
    let candidates = run.config.oci_bundle_dir.iter().cloned().chain(COVERED.map(PathBuf::from));
    let mut looked_at = Vec::new();
    for path in candidates {
        if path.join("run").is_dir() && path.join(crate::image::LOWER).is_file() {
            return Ok(path);
        }
        looked_at.push(format!("`{}`", path.display()));
    }
    Err(ShimError::NoBase { looked_at })
}

fn memory(size: Option<u64>) -> Result<DetachedMount, ShimError> {
    let failed = cannot(MEMORY);
    let memory = FileSystem::open("tmpfs").map_err(&failed)?;
    memory.set("mode", "0755").map_err(&failed)?;
    memory.set("source", "sarus").map_err(&failed)?;
    if let Some(size) = size {
        memory.set("size", size.to_string()).map_err(&failed)?;
    }
    let attributes = Attributes { no_suid: true, no_dev: true, ..Attributes::default() };
    memory.mount(attributes).map_err(&failed)
}

fn choose_base(run: &Run<'_>) -> Result<PathBuf, ShimError> {
    if let Some(configured) = &run.config.oci_bundle_dir {
        return Ok(configured.clone());
    }
    let is_empty = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut all| all.next().is_none());
    // What is covered is out of sight for hooks of the runtime's namespace only.
    let empty = COVERED.iter().map(Path::new).find(|path| is_empty(path));
    let any = || COVERED.iter().rev().map(Path::new).find(|path| path.is_dir());
    empty.or_else(any).map(Path::to_owned).ok_or_else(|| ShimError::NoBase {
        looked_at: COVERED.map(|path| format!("`{path}`")).to_vec(),
    })
}

/// Makes the place for the run's own files, in memory that goes when the run ends.
pub(crate) fn make_own(run: &Run<'_>, setup: &Setup) -> Result<PathBuf, ShimError> {
    let own = setup.base.join("run");
    if setup.shared {
        attach_at(memory(run.writable_size())?, &own)?;
    }
    for name in ["bundle", "state", "rootfs"] {
        make_directory(&own.join(name), 0o755)?;
    }
    Ok(own)
}

/// Puts the writable layer over the image's files, below `own`, and returns the root directory.
pub(crate) fn overlay(run: &Run<'_>, setup: &Setup, own: &Path) -> Result<Overlay, ShimError> {
    let scratch = writable_directory(run, own)?;
    let layer = scratch.as_ref().map_or(own, Scratch::path);
    let upper = layer.join("upper");
    let work = layer.join("work");
    let root_mode = std::fs::metadata(&setup.lower.path)
        .map_err(|source| ShimError::Rootfs { place: "/".into(), source })?
        .mode();
    make_directory(&upper, root_mode & 0o7777)?;
    make_directory(&work, 0o755)?;
    if run.mode == Mode::Privileged {
        std::os::unix::fs::chown(&upper, Some(run.caller.uid), Some(run.caller.gid))
            .map_err(|source| ShimError::Rootfs { place: "/".into(), source })?;
    }
    let overlay = FileSystem::open("overlay")
        .map_err(|source| ShimError::Overlay { said: String::new(), source })?;
    let mounted = mount_overlay(run, &overlay, (setup, &upper, &work));
    let mount = mounted.map_err(|source| {
        let said = overlay.complaint().unwrap_or_default();
        match scratch.as_ref().and_then(|scratch| scratch.path().parent()) {
            Some(directory) => {
                ShimError::OverlayOnDisk { directory: directory.to_owned(), said, source }
            }
            None => ShimError::Overlay { said, source },
        }
    })?;
    let rootfs = own.join("rootfs");
    attach_at(mount, &rootfs)?;
    let disk =
        scratch.as_ref().map(|scratch| format!("on disk, in `{}`", scratch.path().display()));
    let layer = disk.unwrap_or_else(|| "in memory".to_owned());
    let reason = format!("the image, with a writable layer {layer}, which goes with the run");
    run.ledger.note(Entry::own("/", &run.request.image.squashfs.to_string_lossy(), &reason));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(&rootfs, flags, FileMode::empty())
        .map_err(|e| ShimError::Rootfs { place: "/".into(), source: e.into() })?;
    Ok(Overlay { root, scratch })
}

/// The container's root file system.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// Its root directory.
    pub(crate) root: OwnedFd,
    /// The directory on disk of its writable layer, if it is on disk.
    pub(crate) scratch: Option<Scratch>,
}

fn mount_overlay(
    run: &Run<'_>,
    overlay: &FileSystem,
    (setup, upper, work): (&Setup, &Path, &Path),
) -> std::io::Result<DetachedMount> {
    overlay.set("source", sarus_sys::orphans::mark_of(run.supervisor))?;
    let mut lower = prepare::path(&setup.base).into_os_string();
    lower.push(":");
    lower.push(setup.lower.path.as_os_str());
    overlay.set("lowerdir", lower)?;
    overlay.set("upperdir", upper)?;
    overlay.set("workdir", work)?;
    if run.mode == Mode::Rootless {
        overlay.set_flag("userxattr")?;
    }
    overlay.mount(Attributes::NO_SUID_NO_DEV)
}

/// Where the writable layer is: in memory (none), or on disk where the user or the site says so or
/// memory keeps no attributes of users (Linux before 6.6), which overlayfs needs in a user
/// namespace.
fn writable_directory(run: &Run<'_>, own: &Path) -> Result<Option<Scratch>, ShimError> {
    let given = run.writable_directory();
    if given.is_none() && (run.mode == Mode::Privileged || keeps_user_attributes(own)) {
        return Ok(None);
    }
    let parent = given.unwrap_or_else(|| scratch::parent(run.config));
    let scratch = scratch::make(&parent, run.caller.uid)?;
    log::info!("the writable layer is on disk, in `{}`", scratch.path().display());
    Ok(Some(scratch))
}

fn keeps_user_attributes(directory: &Path) -> bool {
    let probe = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(directory, "user.sarus", b"1", probe).is_ok()
}

/// Devices that every container has, as the runtime specification lists them.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Links that every container's /dev has.
const LINKS: [(&str, &str); 6] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// Mounts what every container has: /proc (unless the runtime makes it, with a process namespace
/// of the container's own), /sys and /dev.
pub(crate) fn mount_system(run: &Run<'_>, root: Root<'_>) -> Result<(), ShimError> {
    if !run.request.namespaces.pid {
        let reason = "the host's processes are the container's";
        attach_copy((run, root), "/proc", ("/proc", reason), Attributes::default())?;
    }
    let closed = Attributes { read_only: true, no_suid: true, no_dev: true, no_exec: true };
    attach_copy((run, root), "/sys", ("/sys", "programs look for hardware there"), closed)?;
    let failed = |source| ShimError::Rootfs { place: "/dev".into(), source };
    let dev = FileSystem::open("tmpfs").map_err(failed)?;
    dev.set("mode", "0755").and_then(|()| dev.set("size", "64m")).map_err(failed)?;
    let attributes = Attributes { no_suid: true, ..Attributes::default() };
    attach_new(root, "/dev", dev.mount(attributes).map_err(failed)?)?;
    run.ledger.note(Entry::own("/dev", "tmpfs", "a container sees no other devices than these"));
    let directory = root.resolve(Path::new("/dev")).map_err(failed)?;
    // A label of SELinux's knows the host's nodes.
    let may_make = run.mode == Mode::Privileged && run.config.selinux_label.is_none();
    for name in DEVICES {
        let path = format!("/dev/{name}");
        let entry = Entry::own(&path, &path, "every container has it");
        run.ledger.note(Entry { is_device: true, ..entry });
        make_device(may_make, &directory, name)
            .map_err(|source| ShimError::Rootfs { place: path, source })?;
    }
    for (name, target) in LINKS {
        symlinkat(target, &directory, name).map_err(|e| failed(e.into()))?;
    }
    mount_terminals(run, root)?;
    mount_shared(run, root)
}

/// A device as the host has it: a node of the container's own if that may be and the kernel agrees, since it is
/// cheaper than a mount and what root does to it is no matter to the host, else the host's.
fn make_device(may_make: bool, directory: &OwnedFd, name: &str) -> std::io::Result<()> {
    let host = Path::new("/dev").join(name);
    if may_make {
        let of_host = rustix::fs::stat(&host)?;
        let kind = FileType::from_raw_mode(of_host.st_mode);
        let bits = FileMode::from_raw_mode(of_host.st_mode & 0o777);
        if kind == FileType::CharacterDevice
            && mknodat(directory, name, kind, bits, of_host.st_rdev).is_ok()
        {
            // What the umask took away.
            return Ok(chmodat(directory, name, bits, AtFlags::empty())?);
        }
    }
    let copy = DetachedMount::copy_of(CWD, &host)?;
    copy.attach(make_in(directory.as_fd(), name.as_ref(), Kind::File)?.as_fd())
}

fn mount_terminals(run: &Run<'_>, root: Root<'_>) -> Result<(), ShimError> {
    let failed = |source| ShimError::Rootfs { place: "/dev/pts".into(), source };
    let terminals = FileSystem::open("devpts").map_err(failed)?;
    terminals
        .set("ptmxmode", "0666")
        .and_then(|()| terminals.set("mode", "0620"))
        .map_err(failed)?;
    if run.mode == Mode::Privileged {
        // The group `tty`; in a user namespace with one mapped id it has no number.
        terminals.set("gid", "5").map_err(failed)?;
    }
    let attributes = Attributes { no_suid: true, no_exec: true, ..Attributes::default() };
    run.ledger.note(Entry::own("/dev/pts", "devpts", "terminals of the container's own"));
    attach_new(root, "/dev/pts", terminals.mount(attributes).map_err(failed)?)
}

/// The host's shared memory, which MPI needs, and its message queues.
fn mount_shared(run: &Run<'_>, root: Root<'_>) -> Result<(), ShimError> {
    let attributes = Attributes::NO_SUID_NO_DEV;
    if Path::new("/dev/shm").is_dir() {
        let reason = "the host's: MPI's processes on a node share memory there";
        attach_copy((run, root), "/dev/shm", ("/dev/shm", reason), attributes)?;
    } else {
        let failed = |source| ShimError::Rootfs { place: "/dev/shm".into(), source };
        let memory = FileSystem::open("tmpfs").map_err(failed)?;
        memory.set("mode", "1777").map_err(failed)?;
        run.ledger.note(Entry::own("/dev/shm", "tmpfs", "the host has none"));
        attach_new(root, "/dev/shm", memory.mount(attributes).map_err(failed)?)?;
    }
    let attributes = Attributes { no_exec: true, ..attributes };
    if Path::new("/dev/mqueue").is_dir() {
        let reason = "the host's message queues";
        attach_copy((run, root), "/dev/mqueue", ("/dev/mqueue", reason), attributes)?;
    } else if run.mode == Mode::Privileged
        && let Ok(queues) = FileSystem::open("mqueue")
        && let Ok(mount) = queues.mount(attributes)
    {
        run.ledger.note(Entry::own("/dev/mqueue", "mqueue", "message queues"));
        attach_new(root, "/dev/mqueue", mount)?;
    }
    Ok(())
}

/// Shows a directory or file of the host in the container.
fn attach_copy(
    (run, root): (&Run<'_>, Root<'_>),
    place: &str,
    (source, reason): (&str, &str),
    attributes: Attributes,
) -> Result<(), ShimError> {
    let failed = |source| ShimError::Rootfs { place: place.to_owned(), source };
    let copy = DetachedMount::copy_of(CWD, Path::new(source)).map_err(failed)?;
    if attributes != Attributes::default() {
        copy.restrict(attributes).map_err(failed)?;
    }
    let read_only = attributes.read_only;
    run.ledger.note(Entry { read_only, ..Entry::own(place, source, reason) });
    attach_new(root, place, copy)
}

/// Attaches a mount in the container, on a directory or file as the mount is one.
fn attach_new(root: Root<'_>, place: &str, mount: DetachedMount) -> Result<(), ShimError> {
    crate::user_mounts::attach_system(root, Path::new(place), mount)
        .map_err(|source| ShimError::Rootfs { place: place.to_owned(), source })
}
