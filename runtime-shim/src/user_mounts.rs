//! Mounts and devices that the site and the user asked for.
//!
//! The sources are opened first, with the caller's rights and as the host shows them; they are
//! attached later, by descriptor, on paths that are resolved inside the container's root with the
//! caller's rights. So nobody reaches, makes or changes a file that they could not without Sarus.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode as FileMode, OFlags, ResolveFlags, fstat, open as open_path, openat2,
};
use sarus_config::{Config, UserMounts};
use sarus_launch::{Mount, MountSource, Origin, Request};
use sarus_sys::mount::{Attributes, DetachedMount, FileSystem};
use sarus_sys::root::{Kind, Root};

use crate::error::{ShimError, cannot};
use crate::image::Run;
use crate::ledger::Entry;
use crate::mode::Mode;
use crate::pmi;

/// A mount that waits for the container's root.
#[derive(Debug)]
pub(crate) struct Pending {
    mount: DetachedMount,
    destination: PathBuf,
    kind: Kind,
    entry: Entry,
}

/// Checks a destination by the site's rules: they hold for the user's mounts, and for those that
/// the launcher's variables name unless the place has a name of Slurm's; not for the site's own.
fn check(origin: Origin, path: &Path, rules: &UserMounts) -> Result<(), ShimError> {
    match origin {
        Origin::User => check_destination(path, rules),
        Origin::Host if !pmi::is_slurms(path) => check_destination(path, rules),
        _ => Ok(()),
    }
}

/// Opens all sources: the site's mounts and devices, the launcher's, then the user's, each in the
/// order given.
/// `base` is out of the way while that is done, where a source has to do with it.
pub(crate) fn open(run: &Run<'_>, base: &Path) -> Result<Vec<Pending>, ShimError> {
    if !has_to_do_with(base, run) {
        return open_all(run);
    }
    let failed = cannot("uncover the host's files");
    let kept = open_path(base, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty())
        .map_err(std::io::Error::from)
        .and_then(|base| DetachedMount::copy_of_descriptor(base.as_fd()))
        .map_err(&failed)?;
    sarus_sys::mount::detach(base).map_err(&failed)?;
    let pending = open_all(run);
    crate::image::attach_at(kept, base)?;
    pending
}

fn has_to_do_with(base: &Path, run: &Run<'_>) -> bool {
    let users = run.request.mounts.iter().filter_map(|mount| match &mount.source {
        MountSource::Bind { path } => Some(PathBuf::from(path.as_os_str())),
        MountSource::Tmpfs { .. } => None,
    });
    let sites = run.config.site_mounts.iter().map(|mount| mount.source.clone());
    let launchers = pmi::directories(run.request, run.caller.uid);
    let mut sources = users.chain(sites).chain(launchers);
    // What cannot be resolved may lead anywhere.
    sources.any(|source| match run.as_caller(|| source.canonicalize()) {
        Ok(Ok(source)) => source.starts_with(base) || base.starts_with(&source),
        _ => true,
    })
}

fn open_all(run: &Run<'_>) -> Result<Vec<Pending>, ShimError> {
    let (config, request) = (run.config, run.request);
    let mut pending = Vec::new();
    for site in &config.site_mounts {
        let mount = bind(run, &site.source, site.read_only)?;
        let why = (Origin::Site, "`siteMounts` in sarus.json");
        let entry = Entry::asked(&site.destination, &site.source, why);
        pending.push(mount.at(&site.destination, Entry { read_only: site.read_only, ..entry }));
    }
    for site in &config.site_devices {
        let why = (Origin::Site, "`siteDevices` in sarus.json");
        let entry = Entry::asked(&site.destination, &site.source, why);
        let entry = Entry { is_device: true, ..entry };
        pending.push(device(run, &site.source)?.at(&site.destination, entry));
    }
    for (path, mount) in pmi::open(run) {
        let why = (Origin::Host, "the launcher's variables name it, for PMIx");
        let entry = Entry::asked(&path, &path, why);
        pending.push(Opened(mount, Kind::Directory).at(&path, entry));
    }
    for mount in &request.mounts {
        let destination = Path::new(mount.destination.as_os_str());
        check_destination(destination, &config.user_mounts)?;
        let (source, why) = match &mount.source {
            MountSource::Bind { path } => (path.as_os_str(), "`--mount` or `-v`"),
            MountSource::Tmpfs { .. } => (OsStr::new("tmpfs"), "`--tmpfs`"),
        };
        let entry = Entry::asked(destination, Path::new(source), (Origin::User, why));
        let entry = Entry { read_only: mount.read_only, ..entry };
        pending.push(user_mount(run, mount)?.at(destination, entry));
    }
    for wanted in &request.devices {
        let source = Path::new(wanted.source.as_os_str());
        let destination = Path::new(wanted.destination.as_os_str());
        check_destination(destination, &config.user_mounts)?;
        let entry = Entry::asked(destination, source, (Origin::User, "`--device`"));
        let entry = Entry { is_device: true, ..entry };
        pending.push(device(run, source)?.at(destination, entry));
    }
    Ok(pending)
}

/// Whether the container has mounts that show the host's files, for hooks that ask.
pub(crate) fn has_bind_mounts(config: &Config, request: &Request) -> bool {
    let is_bind = |mount: &Mount| matches!(mount.source, MountSource::Bind { .. });
    !config.site_mounts.is_empty() || request.mounts.iter().any(is_bind)
}

/// Attaches all, in order. `rootfs` is where the container's root is in this mount namespace.
pub(crate) fn attach_all(
    run: &Run<'_>,
    pending: Vec<Pending>,
    (root, rootfs): (Root<'_>, &Path),
) -> Result<(), ShimError> {
    for one in pending {
        let entry = one.entry.clone();
        match attach(run, one, (root, rootfs)) {
            // The run goes on without what nobody asked for by name.
            Err(error) if entry.origin == Origin::Host => {
                log::info!("`{}` is not in the container: {error}", entry.destination);
            }
            attached => {
                attached?;
                run.ledger.note(entry);
            }
        }
    }
    Ok(())
}

fn attach(
    run: &Run<'_>,
    Pending { mount, destination, kind, entry }: Pending,
    (root, rootfs): (Root<'_>, &Path),
) -> Result<(), ShimError> {
    let rules = &run.config.user_mounts;
    check(entry.origin, &destination, rules)?;
    let failed = |source| ShimError::MountTarget { path: destination.clone(), source };
    let target = ensure(run, root, (&destination, kind)).map_err(failed)?;
    if entry.origin != Origin::Site {
        // A link in the image may have led elsewhere.
        check(entry.origin, &place_of(&target, rootfs).map_err(failed)?, rules)?;
    }
    mount.attach(target.as_fd()).map_err(failed)
}

/// Finds or makes the place for a mount, with the caller's rights; where those do not suffice but
/// the place is in the container's own layer, which is all the caller's, for the caller.
pub(crate) fn ensure(
    run: &Run<'_>,
    root: Root<'_>,
    (path, kind): (&Path, Kind),
) -> std::io::Result<OwnedFd> {
    let made = match run.as_caller(|| root.ensure(path, kind))? {
        Err(error)
            if error.kind() == std::io::ErrorKind::PermissionDenied
                && run.mode == Mode::Privileged =>
        {
            // What is in `/dev` was made for this container too.
            match path.strip_prefix("/dev") {
                Ok(below) => {
                    let devices = root.devices()?;
                    Root(devices.as_fd()).ensure_in_layer(below, kind, run.caller.person())
                }
                Err(_elsewhere) => root.ensure_in_layer(path, kind, run.caller.person()),
            }
        }
        found => found,
    };
    made.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => std::io::Error::new(
            std::io::ErrorKind::AlreadyExists,
            "this is, or is below, a symbolic link that leads nowhere in the container",
        ),
        _ => error,
    })
}

/// The path of an open file inside the container.
fn place_of(target: &OwnedFd, rootfs: &Path) -> std::io::Result<PathBuf> {
    let path = std::fs::read_link(format!("/proc/self/fd/{}", target.as_raw_fd()))?;
    let inside = path.strip_prefix(rootfs);
    let outside = || std::io::Error::from_raw_os_error(libc::EXDEV);
    inside.map(|path| Path::new("/").join(path)).map_err(|_not_below| outside())
}

/// Attaches one of the engine's own mounts: a directory on a directory, anything else on a file.
pub(crate) fn attach_system(
    root: Root<'_>,
    path: &Path,
    mount: DetachedMount,
) -> std::io::Result<()> {
    let kind = kind_of(FileType::from_raw_mode(fstat(&mount)?.st_mode));
    let target = root.ensure(path, kind)?;
    mount.attach(target.as_fd())
}

fn kind_of(file: FileType) -> Kind {
    if file == FileType::Directory { Kind::Directory } else { Kind::File }
}

/// Opens a file, directory or device node, as a hook of the site names it.
pub(crate) fn open_any(run: &Run<'_>, source: &Path, read_only: bool) -> Result<Opened, ShimError> {
    match device(run, source) {
        Err(ShimError::NotADevice { .. }) => bind(run, source, read_only),
        opened => opened,
    }
}

/// A mount, and on what it can be attached.
#[derive(Debug)]
pub(crate) struct Opened(pub(crate) DetachedMount, pub(crate) Kind);

impl Opened {
    /// The site's rules hold for what the user asked for.
    fn at(self, destination: &Path, entry: Entry) -> Pending {
        Pending { mount: self.0, destination: destination.to_owned(), kind: self.1, entry }
    }
}

fn user_mount(run: &Run<'_>, mount: &Mount) -> Result<Opened, ShimError> {
    match &mount.source {
        MountSource::Bind { path } => bind(run, Path::new(path.as_os_str()), mount.read_only),
        MountSource::Tmpfs { size, mode, no_exec } => {
            let failed = cannot("make a file system in memory for `--tmpfs`");
            let memory = FileSystem::open("tmpfs").map_err(&failed)?;
            if let Some(size) = size {
                memory.set("size", size.to_string()).map_err(&failed)?;
            }
            memory.set("mode", format!("{:o}", mode.unwrap_or(0o1777))).map_err(&failed)?;
            let person = run.owner_inside();
            memory.set("uid", person.uid.to_string()).map_err(&failed)?;
            memory.set("gid", person.gid.to_string()).map_err(&failed)?;
            let attributes = Attributes { no_exec: *no_exec, ..Attributes::NO_SUID_NO_DEV };
            let attributes = attributes.read_only(mount.read_only);
            Ok(Opened(memory.mount(attributes).map_err(&failed)?, Kind::Directory))
        }
    }
}

/// Opens a path with the caller's rights, and tells what is there.
fn look_up(run: &Run<'_>, source: &Path) -> Result<(OwnedFd, FileType), ShimError> {
    let failed = |error| ShimError::MountSource { path: source.to_owned(), source: error };
    let looked = run.as_caller(|| {
        // `/proc/self` would be this process's, whose descriptors are none of the user's.
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = openat2(CWD, source, flags, FileMode::empty(), ResolveFlags::NO_MAGICLINKS)?;
        let kind = FileType::from_raw_mode(fstat(&found)?.st_mode);
        Ok((found, kind))
    });
    looked.and_then(|looked: rustix::io::Result<_>| Ok(looked?)).map_err(failed)
}

fn bind(run: &Run<'_>, source: &Path, read_only: bool) -> Result<Opened, ShimError> {
    let failed = |error| ShimError::MountSource { path: source.to_owned(), source: error };
    let (found, kind) = look_up(run, source)?;
    let mount = DetachedMount::copy_of_descriptor(found.as_fd()).map_err(failed)?;
    // Device nodes work where the host has them for that, and nowhere else: by what was opened, not
    // by how it was written.
    let opened = std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let no_dev = !opened.is_ok_and(|path| path.starts_with("/dev"));
    let attributes = Attributes { read_only, no_suid: true, no_dev, no_exec: false };
    mount.restrict(attributes).map_err(failed)?;
    Ok(Opened(mount, kind_of(kind)))
}

fn device(run: &Run<'_>, source: &Path) -> Result<Opened, ShimError> {
    let failed = |error| ShimError::MountSource { path: source.to_owned(), source: error };
    let (found, kind) = look_up(run, source)?;
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(ShimError::NotADevice { path: source.to_owned() });
    }
    let mount = DetachedMount::copy_of_descriptor(found.as_fd()).map_err(failed)?;
    Ok(Opened(mount, Kind::File))
}

/// Refuses what the site forbids, and what would replace the container's own system directories.
fn check_destination(path: &Path, rules: &UserMounts) -> Result<(), ShimError> {
    let refused = |because: String| ShimError::MountRefused { path: path.to_owned(), because };
    let plain = normal(path);
    if ["/", "/dev"].iter().any(|taken| plain == Path::new(taken)) {
        return Err(refused("it is made anew for each container".into()));
    }
    if ["/proc", "/sys", "/dev/pts"].iter().any(|taken| plain.starts_with(taken)) {
        return Err(refused("the kernel's own files must stay what they are".into()));
    }
    if let Some(prefix) = rules.not_allowed_prefixes.iter().find(|p| plain.starts_with(p)) {
        return Err(refused(format!(
            "the site's configuration forbids mounts below `{}`",
            prefix.display()
        )));
    }
    if rules.not_allowed_paths.contains(&plain) {
        return Err(refused("the site's configuration forbids it".into()));
    }
    Ok(())
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => drop(normal.pop()),
            _ => {}
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_checked_without_their_dots() {
        let rules = UserMounts {
            not_allowed_prefixes: vec!["/etc".into()],
            not_allowed_paths: vec!["/opt".into()],
        };
        for (path, allowed) in [
            ("/data", true),
            ("/", false),
            ("/data/..", false),
            ("/dev", false),
            ("/dev/shm/x", true),
            ("/dev/pts/0", false),
            ("/proc/self", false),
            ("/x/../sys", false),
            ("/etc/x", false),
            ("/etcetera", true),
            ("/opt", false),
            ("/opt/x", true),
        ] {
            let result = check_destination(Path::new(path), &rules);
            assert_eq!(result.is_ok(), allowed, "{path}");
        }
    }
}
