//! Mounts and devices that the site and the user asked for.
//!
//! The sources are opened first, with the caller's rights and before anything of the host is
//! covered; they are attached later, by descriptor, on paths that are resolved inside the
//! container's root.

use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, fstat};
use sarus_config::{Config, UserMounts};
use sarus_launch::{Mount, MountSource, Request};
use sarus_sys::mount::{Attributes, DetachedMount, FileSystem};
use sarus_sys::root::{Kind, Root};

use crate::error::{ShimError, cannot};

/// A mount that waits for the container's root.
#[derive(Debug)]
pub(crate) struct Pending {
    mount: DetachedMount,
    destination: PathBuf,
}

/// Opens all sources: the site's mounts and devices, then the user's, each in the order given.
pub(crate) fn open(config: &Config, request: &Request) -> Result<Vec<Pending>, ShimError> {
    let mut pending = Vec::new();
    for site in &config.site_mounts {
        pending.push(bind(&site.source, &site.destination, site.read_only)?);
    }
    for site in &config.site_devices {
        pending.push(device(&site.source, &site.destination)?);
    }
    for mount in &request.mounts {
        let destination = Path::new(mount.destination.as_os_str());
        check_destination(destination, &config.user_mounts)?;
        pending.push(user_mount(mount, destination)?);
    }
    for wanted in &request.devices {
        let destination = Path::new(wanted.destination.as_os_str());
        check_destination(destination, &config.user_mounts)?;
        pending.push(device(Path::new(wanted.source.as_os_str()), destination)?);
    }
    Ok(pending)
}

/// Whether the container has mounts that show the host's files, for hooks that ask.
pub(crate) fn has_bind_mounts(config: &Config, request: &Request) -> bool {
    let is_bind = |mount: &Mount| matches!(mount.source, MountSource::Bind { .. });
    !config.site_mounts.is_empty() || request.mounts.iter().any(is_bind)
}

/// Attaches all, in order.
pub(crate) fn attach_all(pending: Vec<Pending>, root: Root<'_>) -> Result<(), ShimError> {
    for Pending { mount, destination } in pending {
        attach(root, &destination, mount)
            .map_err(|source| ShimError::MountTarget { path: destination, source })?;
    }
    Ok(())
}

/// Attaches one mount on a path inside the root: a directory on a directory, anything else on a
/// file. What is missing is made, in the writable layer.
pub(crate) fn attach(root: Root<'_>, path: &Path, mount: DetachedMount) -> std::io::Result<()> {
    let is_directory = FileType::from_raw_mode(fstat(&mount)?.st_mode) == FileType::Directory;
    let kind = if is_directory { Kind::Directory } else { Kind::File };
    let target = root.ensure(path, kind)?;
    mount.attach(target.as_fd())
}

fn user_mount(mount: &Mount, destination: &Path) -> Result<Pending, ShimError> {
    match &mount.source {
        MountSource::Bind { path } => {
            bind(Path::new(path.as_os_str()), destination, mount.read_only)
        }
        MountSource::Tmpfs { size, mode } => {
            let failed = cannot("make a file system in memory for `--tmpfs`");
            let memory = FileSystem::open("tmpfs").map_err(&failed)?;
            if let Some(size) = size {
                memory.set("size", size.to_string()).map_err(&failed)?;
            }
            memory.set("mode", format!("{:o}", mode.unwrap_or(0o1777))).map_err(&failed)?;
            let attributes = Attributes::NO_SUID_NO_DEV.read_only(mount.read_only);
            let mount = memory.mount(attributes).map_err(&failed)?;
            Ok(Pending { mount, destination: destination.to_owned() })
        }
    }
}

fn bind(source: &Path, destination: &Path, read_only: bool) -> Result<Pending, ShimError> {
    let failed = |error| ShimError::MountSource { path: source.to_owned(), source: error };
    let mount = DetachedMount::copy_of(CWD, source).map_err(failed)?;
    // Device nodes work where the host has them for that, and nowhere else.
    let no_dev = !source.starts_with("/dev");
    let attributes = Attributes { read_only, no_suid: true, no_dev, no_exec: false };
    mount.restrict(attributes).map_err(failed)?;
    Ok(Pending { mount, destination: destination.to_owned() })
}

fn device(source: &Path, destination: &Path) -> Result<Pending, ShimError> {
    let failed = |error| ShimError::MountSource { path: source.to_owned(), source: error };
    let mount = DetachedMount::copy_of(CWD, source).map_err(failed)?;
    let kind = FileType::from_raw_mode(fstat(&mount).map_err(|e| failed(e.into()))?.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(ShimError::NotADevice { path: source.to_owned() });
    }
    Ok(Pending { mount, destination: destination.to_owned() })
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
