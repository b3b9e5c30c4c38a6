//! The root file system: image below, writable layer above, and what every container has.
//!
//! All of it is made in a file system in memory that covers one directory in the run's own mount
//! namespace, so that nothing is written on the host and nothing is left.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode as FileMode, OFlags, open, symlinkat};
use sarus_launch::{Account, merge_group, merge_passwd};
use sarus_sys::mount::{Attributes, DetachedMount, FileSystem};
use sarus_sys::root::Root;

use crate::caller::Caller;
use crate::error::{ShimError, cannot};
use crate::image::{Run, attach_at};
use crate::mode::Mode;
use crate::scratch;

/// Directories that are covered in the run's mount namespace when they are empty, best first.
const COVERED: [&str; 8] =
    ["/run/sarus", "/mnt", "/media", "/srv", "/opt", "/var/opt", "/var/local", "/usr/local/games"];

/// Largest file copied from the host or the image into the container's /etc.
const ETC_FILE_MAX: u64 = 16 << 20;

/// Covers a directory with a file system in memory and returns its path.
pub(crate) fn make_base(run: &Run<'_>) -> Result<PathBuf, ShimError> {
    let base = choose_base(run)?;
    let failed = cannot("make a file system in memory");
    let memory = FileSystem::open("tmpfs").map_err(&failed)?;
    memory.set("mode", "0755").map_err(&failed)?;
    memory.set("source", "sarus").map_err(&failed)?;
    if let Some(size) = run.config.writable.size {
        memory.set("size", size.to_string()).map_err(&failed)?;
    }
    let attributes = Attributes { no_suid: true, no_dev: true, ..Attributes::default() };
    attach_at(memory.mount(attributes).map_err(&failed)?, &base)?;
    for name in ["bundle", "state", "lower", "rootfs"] {
        make_directory(&base.join(name), 0o755)?;
    }
    log::debug!("the run's files are in memory, mounted on `{}`", base.display());
    Ok(base)
}

fn choose_base(run: &Run<'_>) -> Result<PathBuf, ShimError> {
    if let Some(configured) = &run.config.oci_bundle_dir {
        return Ok(configured.clone());
    }
    let is_empty = |path: &Path| std::fs::read_dir(path).is_ok_and(|mut all| all.next().is_none());
    if let Some(found) = COVERED.iter().map(PathBuf::from).find(|path| is_empty(path)) {
        return Ok(found);
    }
    let own = scratch::path(run);
    scratch::make(&own).map_err(|_error| {
        let mut looked_at: Vec<String> = COVERED.map(|path| format!("`{path}`")).to_vec();
        looked_at.push(format!("`{}`", own.display()));
        ShimError::NoBase { looked_at }
    })?;
    Ok(own)
}

/// Puts the writable layer over the image's files and returns the root directory.
pub(crate) fn overlay(run: &Run<'_>, base: &Path, lower: &Path) -> Result<OwnedFd, ShimError> {
    let layer = writable_directory(run, base)?;
    let upper = layer.join("upper");
    let work = layer.join("work");
    let root_mode = std::fs::metadata(lower)
        .map_err(|source| ShimError::Rootfs { place: "/".into(), source })?
        .mode();
    make_directory(&upper, root_mode & 0o7777)?;
    make_directory(&work, 0o755)?;
    prepare_upper(run.caller, lower, &upper)?;
    let overlay = FileSystem::open("overlay")
        .map_err(|source| ShimError::Overlay { said: String::new(), source })?;
    let mounted = mount_overlay(run, &overlay, [lower, &upper, &work]);
    let mount = mounted.map_err(|source| ShimError::Overlay {
        said: overlay.complaint().unwrap_or_default(),
        source,
    })?;
    let rootfs = base.join("rootfs");
    attach_at(mount, &rootfs)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(&rootfs, flags, FileMode::empty())
        .map_err(|e| ShimError::Rootfs { place: "/".into(), source: e.into() })
}

fn mount_overlay(
    run: &Run<'_>,
    overlay: &FileSystem,
    [lower, upper, work]: [&Path; 3],
) -> std::io::Result<DetachedMount> {
    overlay.set("source", sarus_sys::orphans::mark_of(run.supervisor))?;
    overlay.set("lowerdir", lower)?;
    overlay.set("upperdir", upper)?;
    overlay.set("workdir", work)?;
    if run.mode == Mode::Rootless {
        overlay.set_flag("userxattr")?;
    }
    overlay.mount(Attributes::NO_SUID_NO_DEV)
}

/// Where the writable layer is: in memory, or on disk where the configuration says so or memory
/// keeps no attributes of users (Linux before 6.6), which overlayfs needs in a user namespace.
fn writable_directory(run: &Run<'_>, base: &Path) -> Result<PathBuf, ShimError> {
    let on_disk = run.config.writable.directory.is_some()
        || (run.mode == Mode::Rootless && !keeps_user_attributes(base));
    if !on_disk {
        return Ok(base.to_owned());
    }
    let scratch = scratch::path(run);
    if !scratch.exists() {
        scratch::make(&scratch)?;
    }
    log::info!("the writable layer is on disk, in `{}`", scratch.display());
    Ok(scratch)
}

fn keeps_user_attributes(directory: &Path) -> bool {
    let probe = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(directory, "user.sarus", b"1", probe).is_ok()
}

/// Puts into the writable layer what the image must not decide: the directories on which file
/// systems are mounted (an image may have symbolic links there), and files of the host.
fn prepare_upper(caller: &Caller, lower: &Path, upper: &Path) -> Result<(), ShimError> {
    for name in ["dev", "proc", "sys"] {
        make_directory(&upper.join(name), 0o755)?;
    }
    let image_etc = std::fs::symlink_metadata(lower.join("etc"));
    let mode = image_etc.ok().filter(std::fs::Metadata::is_dir).map_or(0o755, |etc| etc.mode());
    let etc = upper.join("etc");
    make_directory(&etc, mode & 0o7777 | 0o700)?;
    let image = open(lower, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty())
        .map_err(|e| cannot("open the image's root directory")(e.into()))?;
    let image = Root(image.as_fd());
    for name in ["hosts", "resolv.conf"] {
        let host = std::fs::File::open(Path::new("/etc").join(name)).ok();
        if let Some(text) = host.and_then(|file| read_bounded(file).ok()) {
            write_file(&etc.join(name), &text)?;
        }
    }
    let account = account(caller);
    let image_file = |name: &str| {
        let file = image.open_file(Path::new(name)).ok();
        file.and_then(|file| read_bounded(file).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    if let Some(merged) = merge_passwd(&image_file("etc/passwd"), &account) {
        write_file(&etc.join("passwd"), merged.as_bytes())?;
    }
    if let Some(merged) = merge_group(&image_file("etc/group"), &group_names(caller)) {
        write_file(&etc.join("group"), merged.as_bytes())?;
    }
    Ok(())
}

/// The caller's line of passwd; made up from the variables where the host does not know the user.
fn account(caller: &Caller) -> Account {
    let known = sarus_sys::users::user(caller.uid);
    let variable = |name: &str, otherwise: &str| {
        std::env::var(name).unwrap_or_else(|_unset_or_no_text| otherwise.to_owned())
    };
    let user = known.unwrap_or_else(|| sarus_sys::users::User {
        name: variable("USER", "user"),
        gecos: String::new(),
        home: variable("HOME", "/"),
        shell: "/bin/sh".to_owned(),
    });
    Account {
        name: user.name,
        uid: caller.uid,
        gid: caller.gid,
        gecos: user.gecos,
        home: user.home,
        shell: user.shell,
    }
}

fn group_names(caller: &Caller) -> Vec<(String, u32)> {
    let mut ids = vec![caller.gid];
    ids.extend(caller.groups.iter().filter(|gid| **gid != caller.gid));
    ids.into_iter()
        .map(|gid| {
            let name = sarus_sys::users::group_name(gid);
            (name.unwrap_or_else(|| format!("group{gid}")), gid)
        })
        .collect()
}

fn read_bounded(mut file: std::fs::File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.by_ref().take(ETC_FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), ShimError> {
    let failed = |source| ShimError::Rootfs { place: path.display().to_string(), source };
    #[expect(clippy::disallowed_methods, reason = "the error below carries the path")]
    std::fs::write(path, bytes).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(failed)
}

fn make_directory(path: &Path, mode: u32) -> Result<(), ShimError> {
    let failed = |source| ShimError::Rootfs { place: path.display().to_string(), source };
    std::fs::DirBuilder::new().mode(mode).create(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
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
        attach_copy(root, "/proc", "/proc", Attributes::default())?;
    }
    let closed = Attributes { read_only: true, no_suid: true, no_dev: true, no_exec: true };
    attach_copy(root, "/sys", "/sys", closed)?;
    let failed = |source| ShimError::Rootfs { place: "/dev".into(), source };
    let dev = FileSystem::open("tmpfs").map_err(failed)?;
    dev.set("mode", "0755").and_then(|()| dev.set("size", "64m")).map_err(failed)?;
    let attributes = Attributes { no_suid: true, ..Attributes::default() };
    attach_new(root, "/dev", dev.mount(attributes).map_err(failed)?)?;
    for name in DEVICES {
        let path = format!("/dev/{name}");
        attach_copy(root, &path, &path, Attributes::default())?;
    }
    let directory = root.resolve(Path::new("/dev")).map_err(failed)?;
    for (name, target) in LINKS {
        symlinkat(target, &directory, name).map_err(|e| failed(e.into()))?;
    }
    mount_terminals(run, root)?;
    mount_shared(run, root)
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
    attach_new(root, "/dev/pts", terminals.mount(attributes).map_err(failed)?)
}

/// The host's shared memory, which MPI needs, and its message queues.
fn mount_shared(run: &Run<'_>, root: Root<'_>) -> Result<(), ShimError> {
    let attributes = Attributes::NO_SUID_NO_DEV;
    if Path::new("/dev/shm").is_dir() {
        attach_copy(root, "/dev/shm", "/dev/shm", attributes)?;
    } else {
        let failed = |source| ShimError::Rootfs { place: "/dev/shm".into(), source };
        let memory = FileSystem::open("tmpfs").map_err(failed)?;
        memory.set("mode", "1777").map_err(failed)?;
        attach_new(root, "/dev/shm", memory.mount(attributes).map_err(failed)?)?;
    }
    let attributes = Attributes { no_exec: true, ..attributes };
    if Path::new("/dev/mqueue").is_dir() {
        attach_copy(root, "/dev/mqueue", "/dev/mqueue", attributes)?;
    } else if run.mode == Mode::Privileged
        && let Ok(queues) = FileSystem::open("mqueue")
        && let Ok(mount) = queues.mount(attributes)
    {
        attach_new(root, "/dev/mqueue", mount)?;
    }
    Ok(())
}

/// Shows a directory or file of the host in the container.
fn attach_copy(
    root: Root<'_>,
    place: &str,
    source: &str,
    attributes: Attributes,
) -> Result<(), ShimError> {
    let failed = |source| ShimError::Rootfs { place: place.to_owned(), source };
    let copy = DetachedMount::copy_of(CWD, Path::new(source)).map_err(failed)?;
    if attributes != Attributes::default() {
        copy.restrict(attributes).map_err(failed)?;
    }
    attach_new(root, place, copy)
}

/// Attaches a mount in the container, on a directory or file as the mount is one.
fn attach_new(root: Root<'_>, place: &str, mount: DetachedMount) -> Result<(), ShimError> {
    crate::user_mounts::attach(root, Path::new(place), mount)
        .map_err(|source| ShimError::Rootfs { place: place.to_owned(), source })
}
