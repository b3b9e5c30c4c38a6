//! Paths inside a root directory: resolved by the kernel so that no symbolic link leads out.
//!
//! `openat2(2)` with `RESOLVE_IN_ROOT`: `..` and absolute links stay inside, as in a container.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, mkdirat, openat,
    openat2,
};
use rustix::io::Errno;

use crate::identity::Person;

/// Times a resolution is repeated when a rename got in its way.
const ATTEMPTS_MAX: usize = 8;

/// What a path is to lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory, made with mode 0755 when absent.
    Directory,
    /// Anything but a directory; an empty file is made when absent.
    File,
}

/// A root directory.
#[derive(Debug, Clone, Copy)]
pub struct Root<'a>(pub BorrowedFd<'a>);

impl Root<'_> {
    /// Opens `path` below the root without opening the file itself (`O_PATH`), links followed.
    ///
    /// # Errors
    ///
    /// As `openat2(2)`.
    pub fn resolve(self, path: &Path) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    /// Opens the regular file at `path` for reading. Never blocks on a pipe or device.
    ///
    /// # Errors
    ///
    /// As `openat2(2)`; `EINVAL` if it is not a regular file.
    pub fn open_file(self, path: &Path) -> io::Result<std::fs::File> {
        let file = self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        if FileType::from_raw_mode(fstat(&file)?.st_mode) == FileType::RegularFile {
            Ok(file.into())
        } else {
            Err(io::Error::from_raw_os_error(libc::EINVAL))
        }
    }

    /// The same as [`Root::resolve`], and makes what is missing: directories on the way and the
    /// last component.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`, `EISDIR` if something of the other kind is there; `EEXIST` if a link that leads
    /// nowhere is; else as `openat2(2)` and `mkdirat(2)`.
    pub fn ensure(self, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
        let found = match self.resolve(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(path, kind)?,
            found => found?,
        };
        let is_directory = FileType::from_raw_mode(fstat(&found)?.st_mode) == FileType::Directory;
        match (kind, is_directory) {
            (Kind::Directory, false) => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
            (Kind::File, true) => Err(io::Error::from_raw_os_error(libc::EISDIR)),
            _ => Ok(found),
        }
    }

    /// The same as [`Root::ensure`] for whoever may do everything, on behalf of `owner`: makes
    /// only what is to be in directories of the root's own file system, and gives it to `owner`.
    ///
    /// # Errors
    ///
    /// As [`Root::ensure`]; `EACCES` where the way leads into another file system.
    pub fn ensure_in_layer(self, path: &Path, kind: Kind, owner: Person) -> io::Result<OwnedFd> {
        let device = fstat(self.0)?.st_dev;
        let path = normal(path);
        let mut directory = self.resolve(Path::new("/"))?;
        let names: Vec<&OsStr> = path.iter().collect();
        for (index, name) in names.iter().enumerate() {
            if fstat(&directory)?.st_dev != device {
                return Err(io::Error::from_raw_os_error(libc::EACCES));
            }
            let so_far: PathBuf = names[..=index].iter().collect();
            let kind = if index + 1 == names.len() { kind } else { Kind::Directory };
            directory = match self.resolve(&so_far) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let made = make_in(directory.as_fd(), name, kind)?;
                    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
                    chownat(&made, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
                    made
                }
                found => found?,
            };
        }
        // A link may have led out at last.
        if fstat(&directory)?.st_dev != device {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        Ok(directory)
    }

    /// The root's `/dev`, for whoever may do everything: a file system of root's that was made for
    /// this root. `/dev` may have been put in another's place by somebody who can rename in the
    /// root, so a file system that is mounted outside it too is none.
    ///
    /// # Errors
    ///
    /// `EACCES` if it is not such a one.
    pub fn devices(self) -> io::Result<OwnedFd> {
        let refused = || io::Error::from_raw_os_error(libc::EACCES);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let devices = openat(self.0, "dev", flags, Mode::empty())?;
        let found = fstat(&devices)?;
        if found.st_uid != 0 || found.st_dev == fstat(self.0)?.st_dev {
            return Err(refused());
        }
        let own = std::fs::read_link(format!("/proc/self/fd/{}", self.0.as_raw_fd()))?;
        let mut mounts = String::new();
        let mut file = std::fs::File::open("/proc/self/mountinfo")?;
        io::Read::read_to_string(&mut file, &mut mounts)?;
        let number = (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev));
        if is_mounted_below_only(&mounts, number, &own) { Ok(devices) } else { Err(refused()) }
    }

    fn make(self, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
        let path = normal(path);
        let mut directory = self.resolve(Path::new("/"))?;
        let names: Vec<&OsStr> = path.iter().collect();
        for (index, name) in names.iter().enumerate() {
            let so_far: PathBuf = names[..=index].iter().collect();
            let kind = if index + 1 == names.len() { kind } else { Kind::Directory };
            directory = match self.resolve(&so_far) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make_in(directory.as_fd(), name, kind)?
                }
                found => found?,
            };
        }
        Ok(directory)
    }

    fn open(self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let relative = path.as_os_str().as_bytes();
        let path = if relative.is_empty() { Path::new(".") } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            match openat2(self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN) if attempts < ATTEMPTS_MAX => attempts += 1,
                result => return Ok(result?),
            }
        }
    }
}

/// Whether a file system is mounted, and nowhere but below a directory, by the text of
/// `proc_pid_mountinfo(5)`.
fn is_mounted_below_only(mounts: &str, (major, minor): (u32, u32), directory: &Path) -> bool {
    let number = format!("{major}:{minor}");
    let places = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let is_it = fields.next() == Some(number.as_str());
        fields.nth(1).filter(|_| is_it)
    });
    let mut places = places.peekable();
    places.peek().is_some()
        && places.all(|place| {
            Path::new(place).strip_prefix(directory).is_ok_and(|below| below != Path::new(""))
        })
}

/// Makes one entry in a directory that was opened before, and opens it without following a link.
///
/// # Errors
///
/// `EEXIST` where there is one, and as `openat(2)`. An entry that was made and could not be opened stays.
pub fn make_in(directory: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> io::Result<OwnedFd> {
    let no_follow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match kind {
        Kind::Directory => mkdirat(directory, name, Mode::from_raw_mode(0o755))?,
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | no_follow;
            openat(directory, name, flags, Mode::from_raw_mode(0o644))?;
        }
    }
    Ok(openat(directory, name, OFlags::PATH | no_follow, Mode::empty())?)
}

/// The path without `.` and `..`, as a container would see it if it had no links.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::Normal(name) => normal.push(name),
            std::path::Component::ParentDir => drop(normal.pop()),
            _ => {}
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, readlinkat};
    use std::os::unix::fs::symlink;

    fn path_of(descriptor: &OwnedFd) -> PathBuf {
        use std::os::fd::AsRawFd;
        let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        let target = readlinkat(CWD, link, Vec::new()).unwrap();
        PathBuf::from(OsStr::from_bytes(target.as_bytes()))
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs_err::create_dir_all(base.join("root/real")).unwrap();
        std::fs::create_dir(base.join("etc")).unwrap();
        for (link, target) in [("absolute", "/etc"), ("dots", "../../etc"), ("good", "real")] {
            symlink(target, base.join("root").join(link)).unwrap();
        }
        let opened = std::fs::File::open(base.join("root")).unwrap();
        let root = Root(opened.as_fd());
        for (path, kind, want) in [
            ("/good/sub/file", Kind::File, Some("root/real/sub/file")),
            ("/good/../../new", Kind::Directory, Some("root/new")),
            ("/absolute", Kind::Directory, None),
            ("/dots", Kind::File, None),
        ] {
            let got = root.ensure(Path::new(path), kind).ok().map(|found| path_of(&found));
            assert_eq!(got, want.map(|want| base.join(want)), "{path}");
        }
        assert_eq!(std::fs::read_dir(base.join("etc")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_system_that_is_elsewhere_too_is_not_the_roots_own() {
        let own = Path::new("/base/rootfs");
        let of = |places: &[&str]| -> String {
            let line = |place: &&str| format!("9 8 0:45 / {place} rw - tmpfs tmpfs rw\n");
            places.iter().map(line).collect()
        };
        for (places, want) in [
            (&["/base/rootfs/dev"][..], true),
            (&["/base/rootfs/dev", "/base/rootfs/dev"], true),
            (&["/base/rootfs/dev", "/run"], false),
            (&["/base/rootfs"], false),
            (&["/base/rootfs2/dev"], false),
            (&[], false),
        ] {
            assert_eq!(is_mounted_below_only(&of(places), (0, 45), own), want, "{places:?}");
        }
        assert!(!is_mounted_below_only(&of(&["/base/rootfs/dev"]), (0, 4), own));
    }

    #[test]
    fn a_directory_is_no_file_and_a_file_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        fs_err::write(directory.path().join("file"), "text").unwrap();
        let opened = std::fs::File::open(directory.path()).unwrap();
        let root = Root(opened.as_fd());
        let code =
            |path: &str, kind| root.ensure(Path::new(path), kind).unwrap_err().raw_os_error();
        assert_eq!(code("/file", Kind::Directory), Some(libc::ENOTDIR));
        assert_eq!(code("/", Kind::File), Some(libc::EISDIR));
        assert_eq!(code("/file/below", Kind::File), Some(libc::ENOTDIR));
        assert!(root.open_file(Path::new("/")).is_err());
        assert!(root.open_file(Path::new("file")).is_ok());
    }
}
