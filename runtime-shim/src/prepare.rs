//! What is laid over the image for every container of the user: the directories on which file
//! systems are mounted (an image may have symbolic links there), and files of the host.
//!
//! Made once for all runs that share an image's mount. What comes from the image is read by a
//! process that has given up its privileges.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags, open};
use sarus_launch::{Account, merge_group, merge_passwd};
use sarus_sys::identity::become_person;
use sarus_sys::process::{Ended, Fork, close_all_but, exit_at_once, fork};
use sarus_sys::root::Root;

use crate::error::{ShimError, cannot};
use crate::image::Run;
use crate::mode::Mode;

/// Largest file copied from the host or the image into the container's /etc.
const ETC_FILE_MAX: u64 = 16 << 20;

/// Where it lies below the base.
pub(crate) fn path(base: &Path) -> PathBuf {
    base.join("over")
}

/// Makes it.
pub(crate) fn lay(run: &Run<'_>, base: &Path, image: &Path) -> Result<(), ShimError> {
    let over = path(base);
    make_directory(&over, 0o755)?;
    if run.mode == Mode::Rootless {
        return fill(run, &over, image);
    }
    let caller = run.caller;
    std::os::unix::fs::chown(&over, Some(caller.uid), Some(caller.gid))
        .map_err(|source| ShimError::Rootfs { place: "/".into(), source })?;
    in_person(run, || fill(run, &over, image))
}

/// Does something in a process that has no privileges any more.
fn in_person(run: &Run<'_>, act: impl FnOnce() -> Result<(), ShimError>) -> Result<(), ShimError> {
    match fork().map_err(cannot("make a process"))? {
        Fork::Child => {
            // It reads what strangers wrote, and needs nothing of root's for it.
            close_all_but(rustix::stdio::stderr());
            let failed = |source| ShimError::Privileges { source };
            let done = become_person(run.caller.person()).map_err(failed).and_then(|()| act());
            if let Err(error) = done {
                crate::complain(&crate::error::report(&error));
                exit_at_once(i32::from(crate::ENGINE_FAILED));
            }
            exit_at_once(0)
        }
        Fork::Parent(child) => match child.wait().map_err(cannot("wait for a process"))? {
            Ended::Exited(0) => Ok(()),
            _ => Err(ShimError::Said { code: crate::ENGINE_FAILED }),
        },
    }
}

fn fill(run: &Run<'_>, over: &Path, image: &Path) -> Result<(), ShimError> {
    for name in ["dev", "proc", "sys"] {
        make_directory(&over.join(name), 0o755)?;
    }
    let image_etc = std::fs::symlink_metadata(image.join("etc"));
    let mode = image_etc.ok().filter(std::fs::Metadata::is_dir).map_or(0o755, |etc| etc.mode());
    let etc = over.join("etc");
    make_directory(&etc, mode & 0o7777 | 0o700)?;
    let image = open(image, OFlags::PATH | OFlags::CLOEXEC, FileMode::empty())
        .map_err(|e| cannot("open the image's root directory")(e.into()))?;
    let image = Root(image.as_fd());
    for name in ["hosts", "resolv.conf"] {
        let host = std::fs::File::open(Path::new("/etc").join(name)).ok();
        if let Some(text) = host.and_then(|file| read_bounded(file).ok()) {
            write_file(&etc.join(name), &text)?;
        }
    }
    let image_file = |name: &str| {
        let file = image.open_file(Path::new(name)).ok();
        file.and_then(|file| read_bounded(file).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    };
    if let Some(merged) = merge_passwd(&image_file("etc/passwd"), &account(run)) {
        write_file(&etc.join("passwd"), merged.as_bytes())?;
    }
    if let Some(merged) = merge_group(&image_file("etc/group"), &group_names(run)) {
        write_file(&etc.join("group"), merged.as_bytes())?;
    }
    Ok(())
}

/// The caller's line of passwd; made up from the variables where the host does not know the user.
fn account(run: &Run<'_>) -> Account {
    let variable = |name: &str, otherwise: &str| {
        let value = run.request.host_variable(name);
        value.map_or_else(|| otherwise.to_owned(), |value| value.to_string_lossy())
    };
    let known = run.request.account.as_ref();
    let field = |known: Option<&String>, name: &str, otherwise: &str| {
        known.cloned().unwrap_or_else(|| variable(name, otherwise))
    };
    Account {
        name: field(known.map(|known| &known.name), "USER", "user"),
        uid: run.caller.uid,
        gid: run.caller.gid,
        gecos: known.map(|known| known.gecos.clone()).unwrap_or_default(),
        home: field(known.map(|known| &known.home), "HOME", "/"),
        shell: known.map_or_else(|| "/bin/sh".to_owned(), |known| known.shell.clone()),
    }
}

fn group_names(run: &Run<'_>) -> Vec<(String, u32)> {
    let caller = run.caller;
    let known = run.request.account.as_ref().map(|account| &account.groups);
    let mut ids = vec![caller.gid];
    ids.extend(caller.groups.iter().filter(|gid| **gid != caller.gid));
    ids.into_iter()
        .map(|gid| {
            let name = known.and_then(|names| names.get(&gid).cloned());
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

/// Makes a directory with that mode, whatever the umask.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), ShimError> {
    let failed = |source| ShimError::Rootfs { place: path.display().to_string(), source };
    std::fs::DirBuilder::new().mode(mode).create(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)
}
