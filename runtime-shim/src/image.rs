//! The image's files, mounted: by the kernel, by a FUSE server, or unpacked on disk.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags, open};
use sarus_config::{Config, ImageMount};
use sarus_launch::Request;
use sarus_sys::loop_device::LoopDevice;
use sarus_sys::mount::{Attributes, DetachedMount, FileSystem, mount_fuse};
use sarus_sys::process::{self, Fork, fork};

use crate::caller::Caller;
use crate::descriptors::{duplicate, hide, open_null};
use crate::error::{ShimError, cannot};
use crate::mode::Mode;
use crate::scratch;

/// The first bytes of a squashfs file: kernel, `fs/squashfs/squashfs_fs.h`.
const MAGIC: [u8; 4] = *b"hsqs";

/// Names under which a FUSE server for squashfs is installed. The low-level one alone serves a
/// descriptor and is fast.
const SERVER: &str = "squashfuse_ll";

const READ_ONLY: Attributes =
    Attributes { read_only: true, no_suid: true, no_dev: true, no_exec: false };

/// An image file that looks like one.
#[derive(Debug)]
pub(crate) struct ImageFile {
    file: File,
    path: PathBuf,
}

/// The image's files, as the overlay's lower layer.
#[derive(Debug)]
pub(crate) struct Lower {
    /// Where they are.
    pub(crate) path: PathBuf,
    /// Process id of the FUSE server, if one serves them.
    pub(crate) server: Option<i32>,
}

impl ImageFile {
    /// Opens the file with the caller's rights.
    pub(crate) fn open(request: &Request) -> Result<Self, ShimError> {
        let path = PathBuf::from(request.image.squashfs.as_os_str());
        let failed = |source| ShimError::OpenImage { path: path.clone(), source };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let descriptor = open(&path, flags, FileMode::empty()).map_err(|e| failed(e.into()))?;
        let mut file = File::from(descriptor);
        let mut start = [0; 4];
        let is_image = file.metadata().map_err(failed)?.is_file()
            && file.read_exact(&mut start).is_ok()
            && start == MAGIC;
        if !is_image {
            return Err(ShimError::NotAnImage { path });
        }
        file.rewind().map_err(failed)?;
        Ok(Self { file, path })
    }

    /// Shows the image's files at `lower`, or says where they are instead.
    pub(crate) fn mount(&self, run: &Run<'_>, lower: &Path) -> Result<Lower, ShimError> {
        if run.mode == Mode::Privileged {
            self.mount_by_kernel(run.caller, lower)?;
            log::info!("the image is mounted by the kernel");
            return Ok(Lower { path: lower.to_owned(), server: None });
        }
        let server = find_server(run.config);
        match (run.config.image_mount, why_no_fuse(server.as_deref())) {
            (ImageMount::Fuse, Some(why)) => {
                Err(ShimError::NoFuse { path: self.path.clone(), why })
            }
            (ImageMount::Auto | ImageMount::Kernel, Some(why)) => {
                log::warn!(
                    "{why}: unpacking the image, which costs time and disk space in every run"
                );
                self.unpack(run)
            }
            (ImageMount::Unpack, _) => self.unpack(run),
            (_, None) => {
                let server = self.serve(run.caller, &server.unwrap_or_default(), lower)?;
                log::info!("the image is mounted by FUSE");
                Ok(Lower { path: lower.to_owned(), server: Some(server) })
            }
        }
    }

    fn mount_by_kernel(&self, caller: &Caller, lower: &Path) -> Result<(), ShimError> {
        let failed = |said| {
            move |source| ShimError::MountImage {
                path: self.path.clone(),
                how: "the kernel's squashfs",
                said,
                source,
            }
        };
        let device = LoopDevice::attach(self.file.as_fd()).map_err(failed(String::new()))?;
        let squashfs = FileSystem::open("squashfs").map_err(failed(String::new()))?;
        let mounted = squashfs
            .set("source", device.path())
            .and_then(|()| squashfs.set_flag("ro"))
            .and_then(|()| squashfs.mount(READ_ONLY));
        let mount =
            mounted.map_err(|source| failed(squashfs.complaint().unwrap_or_default())(source))?;
        if caller.uid != 0 {
            let uid = sarus_sys::namespace::IdMap { inside: 0, outside: caller.uid };
            let gid = sarus_sys::namespace::IdMap { inside: 0, outside: caller.gid };
            let owner = sarus_sys::namespace::empty_user_namespace(uid, gid)
                .map_err(cannot("make a user namespace for the image's owner"))?;
            mount.map_ids(owner.as_fd()).map_err(failed(String::new()))?;
        }
        attach_at(mount, lower)
    }

    /// Mounts FUSE at `lower`, and starts the server for it.
    ///
    /// The server belongs to nobody: it has a session of its own, does not see the mount it
    /// serves, and ends when the kernel closes the connection, which is when the last mount
    /// namespace with the mount is gone.
    fn serve(&self, caller: &Caller, server: &Path, lower: &Path) -> Result<i32, ShimError> {
        let failed = |source| ShimError::MountImage {
            path: self.path.clone(),
            how: "FUSE",
            said: String::new(),
            source,
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let device = open("/dev/fuse", flags, FileMode::empty()).map_err(|e| failed(e.into()))?;
        mount_fuse(device.as_fd(), lower, c"fuse.squashfuse").map_err(failed)?;
        match fork().map_err(failed)? {
            Fork::Parent(server) => Ok(server.as_raw_pid()),
            Fork::Child => {
                let _only_on_failure = self.become_server(caller, server, lower, &device);
                process::exit_at_once(1)
            }
        }
    }

    fn become_server(
        &self,
        caller: &Caller,
        server: &Path,
        lower: &Path,
        device: &OwnedFd,
    ) -> Result<std::convert::Infallible, ShimError> {
        let failed = cannot("start the FUSE server");
        hide(&caller.descriptors);
        rustix::process::setsid().map_err(|e| failed(e.into()))?;
        sarus_sys::namespace::new_mount_namespace().map_err(&failed)?;
        sarus_sys::mount::detach(lower).map_err(&failed)?;
        rustix::process::chdir("/").map_err(|e| failed(e.into()))?;
        let null = open_null()?;
        for target in 0..3 {
            duplicate(&null, target).map_err(&failed)?;
        }
        let keep = |descriptor: &dyn AsRawFd| {
            let number = descriptor.as_raw_fd();
            format!("/dev/fd/{number}")
        };
        for descriptor in [device.as_fd(), self.file.as_fd()] {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())
                .map_err(|e| failed(e.into()))?;
        }
        let arguments = [
            server.as_os_str().as_bytes().to_vec(),
            b"-f".to_vec(),
            keep(&self.file).into_bytes(),
            keep(device).into_bytes(),
        ];
        release_signals()?;
        let arguments = crate::runtime::c_strings(arguments.to_vec());
        let environment = crate::runtime::Runtime::environment();
        Err(failed(process::execute(server.as_os_str(), &arguments, &environment)))
    }

    /// Unpacks the image into the run's directory on disk, by the engine, which knows the format.
    fn unpack(&self, run: &Run<'_>) -> Result<Lower, ShimError> {
        let failed = |said: String| ShimError::Unpack { path: self.path.clone(), said };
        let scratch = scratch::path(run);
        if !scratch.exists() {
            scratch::make(&scratch)?;
        }
        let directory = scratch.join("image");
        scratch::make(&directory)?;
        let engine = run.request.engine.as_ref().map(|path| PathBuf::from(path.as_os_str()));
        let engine = engine.ok_or_else(|| failed("the engine did not say where it is".into()))?;
        let mut command = std::process::Command::new(&engine);
        command.arg("unpack-image").arg(&self.path).arg(&directory);
        let said = crate::hooks::run_to_end(&mut command, None, None).map_err(failed)?;
        log::debug!("unpacked: {}", String::from_utf8_lossy(&said).trim());
        Ok(Lower { path: directory, server: None })
    }
}

/// What a run is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) request: &'a Request,
    pub(crate) config: &'a Config,
    pub(crate) mode: Mode,
    /// Process id of the supervisor.
    pub(crate) supervisor: i32,
}

/// Lets signals through again, in a process that is about to execute a program.
pub(crate) fn release_signals() -> Result<(), ShimError> {
    sarus_sys::signals::restore_pipe_signal();
    let none = sarus_sys::signals::SignalMask(0);
    sarus_sys::signals::set_mask(none).map_err(cannot("unblock signals"))?;
    Ok(())
}

/// Attaches a mount on a directory of ours.
pub(crate) fn attach_at(mount: DetachedMount, path: &Path) -> Result<(), ShimError> {
    let place = || path.display().to_string();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = open(path, flags, FileMode::empty()).map_err(std::io::Error::from);
    target
        .and_then(|target| mount.attach(target.as_fd()))
        .map_err(|source| ShimError::Rootfs { place: place(), source })
}

fn find_server(config: &Config) -> Option<PathBuf> {
    let directories = ["/usr/local/bin", "/usr/bin", "/bin"];
    let installed = || {
        directories
            .iter()
            .map(|directory| Path::new(directory).join(SERVER))
            .find(|path| path.exists())
    };
    config.squashfuse_path.clone().filter(|path| path.exists()).or_else(installed)
}

/// Why FUSE cannot be used on this node, if so.
fn why_no_fuse(server: Option<&Path>) -> Option<String> {
    if server.is_none() {
        return Some(format!("`{SERVER}` is not installed"));
    }
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    match rustix::fs::access("/dev/fuse", access) {
        Ok(()) => None,
        Err(error) => Some(format!("/dev/fuse cannot be used ({error})")),
    }
}
