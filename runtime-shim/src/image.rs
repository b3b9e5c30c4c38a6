//! The image's files, mounted: by the kernel, by a FUSE server, or unpacked on disk.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags, open};
use sarus_config::{Config, ImageMount};
use sarus_launch::Request;
use sarus_sys::identity::{Person, with_rights_of};
use sarus_sys::loop_device::LoopDevice;
use sarus_sys::mount::{Attributes, DetachedMount, FileSystem, mount_fuse};
use sarus_sys::process::{self, Fork, fork};
use sarus_sys::scratch::Scratch;

use crate::caller::Caller;
use crate::descriptors::{duplicate, hide, open_null};
use crate::error::{ShimError, cannot};
use crate::ledger::Ledger;
use crate::mode::Mode;
use crate::{prepare, scratch, setup};

/// The first bytes of a squashfs file: kernel, `fs/squashfs/squashfs_fs.h`.
const MAGIC: [u8; 4] = *b"hsqs";

/// The FUSE server, which is installed beside this program.
const SERVER: &str = "sarus-fuse";
/// The one of the package squashfuse: only its low-level variant serves a descriptor.
const OTHER_SERVER: &str = "squashfuse_ll";

const READ_ONLY: Attributes =
    Attributes { read_only: true, no_suid: true, no_dev: true, no_exec: false };

/// An image file that looks like one.
#[derive(Debug)]
pub(crate) struct ImageFile {
    file: File,
    path: PathBuf,
    /// Byte of the file at which the image begins.
    offset: u64,
}

/// The image's files, as the overlay's lower layer.
#[derive(Debug)]
pub(crate) struct Lower {
    /// Where they are.
    pub(crate) path: PathBuf,
    /// The FUSE server, if one serves them.
    pub(crate) server: Option<Server>,
    /// The directory on disk that they are unpacked in, if they are.
    pub(crate) scratch: Option<Scratch>,
    /// Another run uses them already.
    pub(crate) was_there: bool,
}

/// The process that serves an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its process id.
    pub(crate) pid: i32,
    /// When it was started, in clock ticks since boot.
    pub(crate) started: u64,
}

/// The file below the base that tells later runs of the image's files.
pub(crate) const LOWER: &str = "lower";

impl Lower {
    /// Tells those who join.
    pub(crate) fn write(&self, base: &Path) -> Result<(), ShimError> {
        let Server { pid, started } = self.server.unwrap_or(Server { pid: 0, started: 0 });
        let mut text = format!("{pid} {started}\n").into_bytes();
        text.extend_from_slice(self.path.as_os_str().as_bytes());
        #[expect(clippy::disallowed_methods, reason = "the file is in memory of our own")]
        std::fs::write(base.join(LOWER), text).map_err(cannot("write down where the image is"))
    }

    /// Hears it.
    pub(crate) fn read(base: &Path) -> Result<Self, ShimError> {
        let failed = cannot("read where the image is");
        let text = setup::read_small(&base.join(LOWER)).map_err(&failed)?;
        let invalid = || failed(std::io::Error::from(std::io::ErrorKind::InvalidData));
        let (server, path) = text.split_once('\n').ok_or_else(invalid)?;
        let path = PathBuf::from(path);
        let scratch = match path.starts_with(base) {
            true => None,
            false => path.parent().map(setup::hold_scratch).transpose()?,
        };
        Ok(Self { server: Server::parse(server), path, scratch, was_there: true })
    }
}

impl Server {
    /// `PID STARTED`; none for process 0.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.split_once(' ')?;
        let (pid, started) = (pid.parse().ok()?, started.parse().ok()?);
        (pid > 0).then_some(Self { pid, started })
    }
}

impl ImageFile {
    /// Opens the file with the caller's rights.
    pub(crate) fn open(request: &Request) -> Result<Self, ShimError> {
        let path = PathBuf::from(request.image.squashfs.as_os_str());
        let failed = |source| ShimError::OpenImage { path: path.clone(), source };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let descriptor = open(&path, flags, FileMode::empty()).map_err(|e| failed(e.into()))?;
        let file = File::from(descriptor);
        let offset = request.image.offset;
        let mut start = [0; 4];
        let is_image = file.metadata().map_err(failed)?.is_file()
            && file.read_exact_at(&mut start, offset).is_ok()
            && start == MAGIC;
        if !is_image {
            return Err(ShimError::NotAnImage { path });
        }
        Ok(Self { file, path, offset })
    }

    /// Byte of the file at which the image begins; the user says so.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The file, open for reading.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// As the request names it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Shows the image's files below `base`, or on disk.
    pub(crate) fn mount(&self, run: &Run<'_>, base: &Path) -> Result<Lower, ShimError> {
        let lower = base.join("image");
        if run.mode == Mode::Privileged {
            let was_there = self.mount_by_kernel(run.caller, &lower)?;
            log::info!("the image is mounted by the kernel");
            return Ok(Lower { path: lower, server: None, scratch: None, was_there });
        }
        let server = ServerProgram::find(run.config);
        match (run.config.image_mount, why_no_fuse(server.as_ref())) {
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
                let server = server.unwrap_or_default();
                let server = self.serve(run.caller, &server, &lower)?;
                log::info!("the image is mounted by FUSE");
                Ok(Lower { path: lower, server: Some(server), scratch: None, was_there: false })
            }
        }
    }

    /// True if another run has the image mounted.
    fn mount_by_kernel(&self, caller: &Caller, lower: &Path) -> Result<bool, ShimError> {
        let failed = |said| {
            move |source| ShimError::MountImage {
                path: self.path.clone(),
                how: "the kernel's squashfs",
                said,
                source,
            }
        };
        let device = LoopDevice::share(self.file.as_fd()).map_err(failed(String::new()))?;
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
        attach_at(mount, lower)?;
        Ok(device.was_there())
    }

    /// Mounts FUSE at `lower`, and starts the server for it.
    ///
    /// The server belongs to nobody: it has a session of its own, does not see the mount it
    /// serves, and ends when the kernel closes the connection, which is when the last mount
    /// namespace with the mount is gone.
    fn serve(
        &self,
        caller: &Caller,
        server: &ServerProgram,
        lower: &Path,
    ) -> Result<Server, ShimError> {
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
            Fork::Parent(server) => {
                let pid = server.as_raw_pid();
                Ok(Server { pid, started: process::start_time(pid).unwrap_or(0) })
            }
            Fork::Child => {
                let _only_on_failure = self.become_server(caller, server, lower, &device);
                process::exit_at_once(1)
            }
        }
    }

    fn become_server(
        &self,
        caller: &Caller,
        server: &ServerProgram,
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
        for descriptor in [device.as_fd(), self.file.as_fd()] {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())
                .map_err(|e| failed(e.into()))?;
        }
        release_signals()?;
        let arguments = server.arguments([self.file.as_raw_fd(), device.as_raw_fd()], self.offset);
        let environment = crate::runtime::Runtime::environment();
        Err(failed(process::execute(server.path.as_os_str(), &arguments, &environment)))
    }

    /// Unpacks the image into a directory on disk, by the engine, which knows the format.
    fn unpack(&self, run: &Run<'_>) -> Result<Lower, ShimError> {
        let failed = |said: String| ShimError::Unpack { path: self.path.clone(), said };
        let scratch = scratch::make(&scratch::parent(run.config), run.caller.uid)?;
        let directory = scratch.path().join("image");
        prepare::make_directory(&directory, 0o700)?;
        let engine = run.request.engine.as_ref().map(|path| PathBuf::from(path.as_os_str()));
        let engine = engine.ok_or_else(|| failed("the engine did not say where it is".into()))?;
        let mut command = std::process::Command::new(&engine);
        command.arg("unpack-image");
        if self.offset != 0 {
            command.arg(format!("--offset={}", self.offset));
        }
        command.arg(&self.path).arg(&directory);
        let said = crate::hooks::run_to_end(&mut command, None, None)
            .map_err(|failure| failed(failure.sentence()))?;
        log::debug!("unpacked: {}", String::from_utf8_lossy(&said).trim());
        Ok(Lower { path: directory, server: None, scratch: Some(scratch), was_there: false })
    }
}

/// What a run is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) request: &'a Request,
    pub(crate) config: &'a Config,
    pub(crate) mode: Mode,
    /// What is put into the container.
    pub(crate) ledger: &'a Ledger,
    /// Process id of the supervisor.
    pub(crate) supervisor: i32,
}

impl Run<'_> {
    /// The limit in bytes of the run's writable layer in memory, if there is one: the configured
    /// one, or the task's part of the node's.
    pub(crate) fn writable_size(&self) -> Option<u64> {
        let writable = &self.config.writable;
        let variable = |name: &str| {
            self.request.host_variable(name).and_then(|value| value.as_str().map(str::to_owned))
        };
        let part = writable.node_size.map(|size| {
            let tasks = variable("SLURM_STEP_TASKS_PER_NODE").map(|tasks| {
                let node = variable("SLURM_NODEID").and_then(|node| node.parse().ok());
                tasks_on_node(&tasks, node.unwrap_or(0))
            });
            size / tasks.unwrap_or(1).max(1)
        });
        [writable.size, part].into_iter().flatten().min()
    }

    /// Does something with the caller's rights and no others. Rootless, the builder has no others.
    pub(crate) fn as_caller<T>(&self, act: impl FnOnce() -> T) -> std::io::Result<T> {
        match self.mode {
            Mode::Privileged => with_rights_of(self.caller.person(), act),
            Mode::Rootless => Ok(act()),
        }
    }

    /// The ids, in the builder's user namespace, that stand for the caller.
    pub(crate) fn owner_inside(&self) -> Person {
        match self.mode {
            Mode::Privileged => self.caller.person(),
            Mode::Rootless => Person { uid: 0, gid: 0 },
        }
    }

    /// Where on disk the writable layer is to be, if it is.
    pub(crate) fn writable_directory(&self) -> Option<PathBuf> {
        let given = self.request.writable_dir.as_ref().map(|path| path.as_os_str().into());
        given.or_else(|| self.config.writable.directory.clone())
    }
}

/// The tasks on one node, from Slurm's list of all: `2(x3),1` is two on each of three, one on the
/// last. 1 where the list does not say.
fn tasks_on_node(list: &str, node: usize) -> u64 {
    let group = |text: &str| {
        let (tasks, nodes) = text.split_once("(x").unwrap_or((text, "1)"));
        Some((tasks.parse().ok()?, nodes.strip_suffix(')')?.parse().ok()?))
    };
    let mut before = 0_usize;
    for (tasks, nodes) in list.split(',').map_while(group) {
        before = before.saturating_add(nodes);
        if node < before {
            return tasks;
        }
    }
    1
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

/// A program that serves images by FUSE.
#[derive(Debug, Default)]
struct ServerProgram {
    path: PathBuf,
    /// Takes the two descriptors' numbers, and no more; else squashfuse's words.
    is_ours: bool,
}

impl ServerProgram {
    /// The configured one, else Sarus's own, else squashfuse's.
    fn find(config: &Config) -> Option<Self> {
        let theirs = |path: PathBuf| Self { path, is_ours: false };
        if let Some(path) = config.squashfuse_path.clone().filter(|path| path.exists()) {
            return Some(theirs(path));
        }
        let own = std::env::current_exe().ok().map(|path| path.with_file_name(SERVER));
        if let Some(path) = own.filter(|path| path.exists()) {
            return Some(Self { path, is_ours: true });
        }
        let directories = ["/usr/local/bin", "/usr/bin", "/bin"];
        let paths = directories.iter().map(|directory| Path::new(directory).join(OTHER_SERVER));
        paths.map(theirs).find(|server| server.path.exists())
    }

    fn arguments(&self, [image, device]: [i32; 2], offset: u64) -> Vec<CString> {
        let name = self.path.as_os_str().as_bytes().to_vec();
        let rest = match (self.is_ours, offset) {
            (true, 0) => vec![image.to_string(), device.to_string()],
            (true, _) => vec![image.to_string(), device.to_string(), offset.to_string()],
            (false, _) => {
                let mut words = vec!["-f".to_owned()];
                if offset != 0 {
                    words.extend(["-o".to_owned(), format!("offset={offset}")]);
                }
                words.extend([image, device].map(|number| format!("/dev/fd/{number}")));
                words
            }
        };
        let rest = rest.into_iter().map(String::into_bytes);
        crate::runtime::c_strings(std::iter::once(name).chain(rest).collect())
    }
}

/// Why FUSE cannot be used on this node, if so.
fn why_no_fuse(server: Option<&ServerProgram>) -> Option<String> {
    if server.is_none() {
        return Some(format!("neither `{SERVER}` nor `{OTHER_SERVER}` is installed"));
    }
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    match rustix::fs::access("/dev/fuse", access) {
        Ok(()) => None,
        Err(error) => Some(format!("/dev/fuse cannot be used ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_of_a_node_are_found_in_slurms_list() {
        for (list, node, want) in [
            ("4", 0, 4),
            ("2(x3),1", 2, 2),
            ("2(x3),1", 3, 1),
            ("2(x3),7", 9, 1),
            ("x", 0, 1),
            ("3(x", 0, 1),
            ("5,6(x2)", 1, 6),
        ] {
            assert_eq!(tasks_on_node(list, node), want, "{list} {node}");
        }
    }

    #[test]
    fn a_server_is_a_process_and_its_start() {
        for (text, want) in
            [("7 9", Some(Server { pid: 7, started: 9 })), ("0 0", None), ("x 1", None), ("", None)]
        {
            assert_eq!(Server::parse(text), want, "{text}");
        }
    }
}
