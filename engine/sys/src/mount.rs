//! Mounts as descriptors: made detached, attached by descriptor, gone when dropped.
//!
//! The kernel's mount interface since Linux 5.2 (`fsopen(2)`, `open_tree(2)`, `move_mount(2)`),
//! and `mount_setattr(2)` since 5.12.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount,
    fsopen, mount_change, move_mount, open_tree, unmount,
};

/// What a mount forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of mount(2) of its own")]
pub struct Attributes {
    /// Writing.
    pub read_only: bool,
    /// Set-user-ID, set-group-ID and file capabilities.
    pub no_suid: bool,
    /// Device nodes.
    pub no_dev: bool,
    /// Executing files.
    pub no_exec: bool,
}

impl Attributes {
    /// What every mount of a container has at least, but for its `/dev`.
    pub const NO_SUID_NO_DEV: Self =
        Self { read_only: false, no_suid: true, no_dev: true, no_exec: false };

    /// The same, read-only or not.
    #[must_use]
    pub fn read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    fn flags(self) -> MountAttrFlags {
        let all = [
            (self.read_only, MountAttrFlags::MOUNT_ATTR_RDONLY),
            (self.no_suid, MountAttrFlags::MOUNT_ATTR_NOSUID),
            (self.no_dev, MountAttrFlags::MOUNT_ATTR_NODEV),
            (self.no_exec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        ];
        all.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect()
    }
}

/// A new file system, configured but not mounted.
#[derive(Debug)]
pub struct FileSystem(OwnedFd);

impl FileSystem {
    /// Opens a file system of that type (`tmpfs`, `overlay`, `squashfs`).
    ///
    /// # Errors
    ///
    /// `ENODEV` if the kernel has none of that name; `EPERM` without `CAP_SYS_ADMIN`.
    pub fn open(kind: &str) -> io::Result<Self> {
        Ok(Self(fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?))
    }

    /// Sets an option with a value.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the file system does not know it.
    pub fn set(&self, key: &str, value: impl rustix::path::Arg) -> io::Result<()> {
        Ok(fsconfig_set_string(self.0.as_fd(), key, value)?)
    }

    /// Sets an option without a value.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the file system does not know it.
    pub fn set_flag(&self, key: &str) -> io::Result<()> {
        Ok(fsconfig_set_flag(self.0.as_fd(), key)?)
    }

    /// Makes the file system and a mount of it that is attached nowhere yet.
    ///
    /// # Errors
    ///
    /// What the file system says. [`FileSystem::complaint`] has its words, where it has any.
    pub fn mount(&self, attributes: Attributes) -> io::Result<DetachedMount> {
        fsconfig_create(self.0.as_fd())?;
        let mount = fsmount(self.0.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes.flags())?;
        Ok(DetachedMount(mount))
    }

    /// The last message of the kernel about this file system, for errors.
    pub fn complaint(&self) -> Option<String> {
        let mut last = None;
        let mut buffer = [0_u8; 1024];
        while let Ok(size @ 1..) = rustix::io::read(self.0.as_fd(), &mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..size]);
            last = Some(text.trim().trim_start_matches("e ").to_owned());
        }
        last
    }
}

/// A mount in no namespace yet: attach it, or drop it and it is gone.
#[derive(Debug)]
#[must_use = "dropping a detached mount undoes it"]
pub struct DetachedMount(OwnedFd);

impl DetachedMount {
    /// A copy of what is mounted at `path` relative to `directory`, with all that is mounted
    /// below it. Follows symbolic links, with the rights of the caller.
    ///
    /// # Errors
    ///
    /// As `open_tree(2)`.
    pub fn copy_of(directory: BorrowedFd<'_>, path: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE;
        Ok(Self(open_tree(directory, path, flags)?))
    }

    /// As [`DetachedMount::copy_of`], of what a descriptor refers to.
    ///
    /// # Errors
    ///
    /// As `open_tree(2)`.
    pub fn copy_of_descriptor(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(Self(open_tree(descriptor, "", flags)?))
    }

    /// Adds attributes to the mount and all below it; never takes one away.
    ///
    /// # Errors
    ///
    /// `ENOSYS` before Linux 5.12.
    pub fn restrict(&self, attributes: Attributes) -> io::Result<()> {
        let request =
            MountSetattr { set: u64::from(attributes.flags().bits()), ..MountSetattr::default() };
        mount_setattr(self.0.as_fd(), libc::AT_RECURSIVE, &request)
    }

    /// Takes the flag "read-only" from the mount, not from those below it: a copy of a read-only
    /// mount may be written to where its file system may.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_ADMIN`, and where a mount namespace with more rights made it read-only;
    /// `ENOSYS` before Linux 5.12.
    pub fn allow_writes(&self) -> io::Result<()> {
        let request = MountSetattr { clear: libc::MOUNT_ATTR_RDONLY, ..MountSetattr::default() };
        mount_setattr(self.0.as_fd(), 0, &request)
    }

    /// Shows the mount's files with other owners: id 0 of the file system as the id that 0 is
    /// mapped to in `user_namespace`. For a mount that was never attached.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the file system cannot (squashfs: before Linux 6.2); `EPERM` without
    /// `CAP_SYS_ADMIN` in the file system's user namespace.
    pub fn map_ids(&self, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
        let request = MountSetattr {
            set: libc::MOUNT_ATTR_IDMAP,
            user_namespace: u64::from(user_namespace.as_raw_fd().unsigned_abs()),
            ..MountSetattr::default()
        };
        mount_setattr(self.0.as_fd(), 0, &request)
    }

    /// Attaches the mount on `target`, a directory or file that was opened before.
    ///
    /// Takes a descriptor, not a path: nothing is looked up again, so no symbolic link can move
    /// the mount elsewhere.
    ///
    /// # Errors
    ///
    /// `EPERM` without `CAP_SYS_ADMIN`; `ENOTDIR` if one of the two is a directory and one is not.
    pub fn attach(self, target: BorrowedFd<'_>) -> io::Result<()> {
        let by_descriptor =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(self.0.as_fd(), "", target, "", by_descriptor)?)
    }
}

impl AsFd for DetachedMount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `struct mount_attr` of `mount_setattr(2)`.
#[derive(Debug, Default)]
#[repr(C)]
struct MountSetattr {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

#[expect(unsafe_code, reason = "mount_setattr(2) has no wrapper")]
fn mount_setattr(mount: BorrowedFd<'_>, flags: i32, request: &MountSetattr) -> io::Result<()> {
    // SAFETY: the path is an empty C string and the request is a live structure of the size
    // given, laid out as the kernel's.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags | libc::AT_EMPTY_PATH,
            std::ptr::from_ref(request),
            size_of::<MountSetattr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Mounts a FUSE file system whose server will read requests from `device`.
///
/// `device` must have been opened in the user namespace of the caller. The root belongs to id 0
/// of that namespace. Read-only, nosuid, nodev.
///
/// # Errors
///
/// As `mount(2)`; `EPERM` where the kernel permits no FUSE in a user namespace.
pub fn mount_fuse(device: BorrowedFd<'_>, target: &Path, kind: &CStr) -> io::Result<()> {
    let options =
        format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::RDONLY;
    let options = std::ffi::CString::new(options)?;
    Ok(rustix::mount::mount(c"sarus", target, kind, flags, options.as_c_str())?)
}

/// Keeps mounts of this namespace from reaching the one it was copied from. What is mounted
/// there later still appears here (automounted home directories).
///
/// # Errors
///
/// As `mount(2)`.
pub fn receive_only() -> io::Result<()> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    Ok(mount_change("/", flags)?)
}

/// Takes away what is mounted at `path`, and all below it, as soon as it is unused.
///
/// # Errors
///
/// As `umount2(2)`; `EINVAL` if nothing is mounted there.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(unmount(path, UnmountFlags::DETACH)?)
}
