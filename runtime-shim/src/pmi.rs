//! What a launcher's process manager keeps on the node for a step, and every task needs: the directories of PMIx.
//!
//! A PMIx client reads what its server says of the job in memory that both map, from files in the server's
//! directory; it is shown in the container at its own path. Slurm names a second one, for what the tasks of a
//! node share. PMI 2 needs nothing here: its socket is a descriptor of the caller's and keeps its number.
//!
//! The paths are the caller's variables, hence worth nothing: what is not a directory of the caller's is left out.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode as FileMode, OFlags, fstat, open as open_path};
use sarus_launch::{RawString, Request};
use sarus_sys::mount::{Attributes, DetachedMount};

use crate::image::Run;

/// The start of the names of directories that Slurm makes for a step: `pmix.JOB.STEP` and
/// `spmix_appdir_UID_JOB.STEP`, before Slurm 20.11 `spmix_appdir_JOB.STEP`.
const SLURMS_NAMES: [&str; 2] = ["pmix.", "spmix_appdir_"];

/// The directories that the caller's variables lead to, whether they exist or not, in order.
pub(crate) fn directories(request: &Request, uid: u32) -> BTreeSet<PathBuf> {
    let value = |name: &str| request.host_variable(name).as_ref().map(path_of);
    let servers = value("PMIX_SERVER_TMPDIR");
    let stores = request.host_env.iter().filter_map(data_store);
    let text = |name| Some(value(name)?.to_str()?.to_owned());
    let step = text("SLURM_JOB_ID").zip(text("SLURM_STEP_ID")).filter(|_| servers.is_some());
    let shared = step.into_iter().flat_map(|(job, step)| {
        let places = ["PMIX_SYSTEM_TMPDIR", "TMPDIR"].into_iter().filter_map(value);
        let places = places.chain([PathBuf::from("/tmp")]);
        let names = [format!("{uid}_{job}.{step}"), format!("{job}.{step}")];
        places.flat_map(move |place| {
            names.clone().map(|name| place.join(format!("spmix_appdir_{name}")))
        })
    });
    let all = servers.iter().cloned().chain(stores).chain(shared);
    all.filter(|path| is_plain(path)).collect()
}

/// The directory of the server that keeps a data store: `PMIX_DSTORE_21_BASE_PATH=DIRECTORY/NAME`.
fn data_store(entry: &RawString) -> Option<PathBuf> {
    let rest = entry.as_bytes().strip_prefix(b"PMIX_DSTORE_")?;
    let at = rest.iter().position(|byte| *byte == b'=')?;
    rest[..at].ends_with(b"_BASE_PATH").then_some(())?;
    let value = std::os::unix::ffi::OsStrExt::from_bytes(&rest[at + 1..]);
    Path::new::<std::ffi::OsStr>(value).parent().map(|path| path.components().collect())
}

/// The path without what means nothing: `/a//b/` is `/a/b`.
fn path_of(value: &RawString) -> PathBuf {
    Path::new(value.as_os_str()).components().collect()
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute()
        && path.file_name().is_some()
        && !path.components().any(|component| component == Component::ParentDir)
}

/// Whether a place has a name that Slurm gives, so that nothing of the container can be meant: the
/// site's rules for mounts of users do not hold for it.
pub(crate) fn is_slurms(path: &Path) -> bool {
    let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    let numbers = SLURMS_NAMES.iter().find_map(|start| name.strip_prefix(start));
    numbers.is_some_and(|rest| {
        rest.contains('.')
            && rest.bytes().all(|byte| byte.is_ascii_digit() || b"._".contains(&byte))
    })
}

/// Opens those that are the caller's, with the caller's rights.
pub(crate) fn open(run: &Run<'_>) -> Vec<(PathBuf, DetachedMount)> {
    let candidates = directories(run.request, run.caller.uid);
    let opened = candidates.into_iter().filter_map(|path| match open_one(run, &path) {
        Ok(mount) => Some((path, mount)),
        Err(error) => {
            log::debug!("`{}` is no directory of a PMIx server: {error}", path.display());
            None
        }
    });
    opened.collect()
}

fn open_one(run: &Run<'_>, path: &Path) -> std::io::Result<DetachedMount> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found: OwnedFd = run.as_caller(|| open_path(path, flags, FileMode::empty()))??;
    let status = fstat(&found)?;
    let is_directory = FileType::from_raw_mode(status.st_mode) == FileType::Directory;
    if !is_directory || status.st_uid != run.owner_inside().uid {
        return Err(std::io::Error::from_raw_os_error(libc::EPERM));
    }
    let mount = DetachedMount::copy_of_descriptor(found.as_fd())?;
    mount.restrict(Attributes::NO_SUID_NO_DEV)?;
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_slurm_are_told_from_others() {
        for (path, is_one) in [
            ("/var/spool/slurmd/pmix.4711.0", true),
            ("/tmp/spmix_appdir_1000_4711.0", true),
            ("/tmp/spmix_appdir_4711.0", true),
            ("/etc/pmix.conf", false),
            ("/etc/pmix.4711.0/conf", false),
            ("/etc/pmix.4711", false),
            ("/etc/pmix.", false),
            ("/etc", false),
        ] {
            assert_eq!(is_slurms(Path::new(path)), is_one, "{path}");
        }
    }
    #[test]
    fn variables_lead_to_the_directories_of_server_and_step() {
        let given = |variables: &[&str]| {
            let json = serde_json::json!({
                "version": sarus_launch::REQUEST_VERSION,
                "image": {"squashfs": "/image", "name": "image"},
                "command": {"args": ["true"]},
                "host_env": variables,
            });
            let request = Request::parse(json.to_string().as_bytes()).unwrap();
            let found = directories(&request, 1000).into_iter();
            found.map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let server = "PMIX_SERVER_TMPDIR=/spool/pmix.7.0/";
        let store = "PMIX_DSTORE_21_BASE_PATH=/other/pmix.7.0//pmix_dstor_ds21_382";
        let step = ["SLURM_JOB_ID=7", "SLURM_STEP_ID=0"];
        for (variables, want) in [
            (vec![], vec![]),
            (step.to_vec(), vec![]),
            (vec![server], vec!["/spool/pmix.7.0"]),
            (vec![store, "PMIX_DSTORE_X=/a/b"], vec!["/other/pmix.7.0"]),
            (vec!["PMIX_SERVER_TMPDIR=relative"], vec![]),
            (vec!["PMIX_SERVER_TMPDIR=/a/../etc"], vec![]),
            (vec!["PMIX_SERVER_TMPDIR=/"], vec![]),
            (
                vec![server, step[0], step[1], "PMIX_SYSTEM_TMPDIR=/scratch"],
                vec![
                    "/scratch/spmix_appdir_1000_7.0",
                    "/scratch/spmix_appdir_7.0",
                    "/spool/pmix.7.0",
                    "/tmp/spmix_appdir_1000_7.0",
                    "/tmp/spmix_appdir_7.0",
                ],
            ),
        ] {
            assert_eq!(given(&variables), want, "{variables:?}");
        }
    }
}
