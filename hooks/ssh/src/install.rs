//! Lays what is needed into the container: two small file systems in memory, one with programs and
//! keys, one over the user's `~/.ssh`. Nothing of it reaches the host, and it goes with the container.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, fchown, mkdirat, openat, statat};
use sarus_hook::Failure;
use sarus_sys::identity::{Person, with_rights_of};
use sarus_sys::mount::{Attributes, DetachedMount, FileSystem};
use sarus_sys::root::{Kind, Root};

use crate::keys::Keys;
use crate::software::Software;
use crate::{PLACE, scripts};

/// Most files of `~/.ssh` that a container sees.
const FILES_MAX: usize = 64;

/// The largest of them, in bytes.
const SIZE_MAX: u64 = 256 << 10;

/// The file by which the server lets in.
const AUTHORIZED: &str = "authorized_keys";

/// All that is laid into the container.
#[derive(Debug)]
pub(crate) struct Installation {
    pub(crate) root: OwnedFd,
    pub(crate) person: Person,
    pub(crate) software: Software,
    pub(crate) keys: Keys,
    /// Lines of `authorized_keys`.
    pub(crate) authorized: String,
    /// The script of a session.
    pub(crate) session: String,
    /// The script `ssh`.
    pub(crate) client: String,
    /// The user's home directory, as the server finds it.
    pub(crate) home: PathBuf,
    /// `~/.ssh` is covered, instead of written to.
    pub(crate) hides_home: bool,
}

impl Installation {
    /// Does it.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub(crate) fn install(&self) -> Result<(), Failure> {
        let failed = |what: String| {
            move |error: std::io::Error| Failure::new(format!("cannot {what}")).because(error)
        };
        let tree = self.install_programs().map_err(failed(format!("install ssh in `{PLACE}`")))?;
        self.install_client(&tree)
            .map_err(failed("install the ssh client in `/usr/bin/ssh`".into()))?;
        let directory = self.home.join(".ssh");
        let act = || if self.hides_home { self.cover(&directory) } else { self.add(&directory) };
        act().map_err(failed(format!("let you in by your key in `{}`", directory.display())))
    }

    fn root(&self) -> Root<'_> {
        Root(self.root.as_fd())
    }

    /// Returns the directory with the programs.
    fn install_programs(&self) -> std::io::Result<OwnedFd> {
        let memory = self.memory(0o755)?;
        let tree = memory.as_fd().try_clone_to_owned()?;
        let has_loader = self.software.loader.is_some();
        let client = scripts::starter("dbclient", has_loader);
        for (name, mode, content) in [
            ("host_key", 0o600, self.keys.host.as_slice()),
            ("id", 0o600, self.keys.user.as_slice()),
            ("session", 0o755, self.session.as_bytes()),
            ("ssh", 0o755, self.client.as_bytes()),
            ("dbclient", 0o755, client.as_bytes()),
            ("log", 0o600, b""),
        ] {
            self.write(&tree, Path::new(name), (mode, content))?;
        }
        let mut shown: Vec<(PathBuf, &Path)> = vec![
            ("bin/dropbear".into(), &self.software.server),
            ("bin/dbclient".into(), &self.software.client),
        ];
        if let Some(loader) = &self.software.loader {
            shown.push(("lib/loader".into(), loader));
        }
        let libraries = self.software.libraries.iter();
        shown.extend(libraries.map(|(name, path)| (Path::new("lib").join(name), path.as_path())));
        for directory in ["bin", "lib"] {
            mkdirat(&tree, directory, Mode::from_raw_mode(0o755))?;
        }
        for (name, _) in &shown {
            self.write(&tree, name, (0o755, b""))?;
        }
        memory.attach(self.directory(Path::new(PLACE))?.as_fd())?;
        for (name, source) in shown {
            let mount = DetachedMount::copy_of(rustix::fs::CWD, source)?;
            mount.restrict(Attributes::NO_SUID_NO_DEV.read_only(true))?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            mount.attach(openat(&tree, &name, flags, Mode::empty())?.as_fd())?;
        }
        Ok(tree)
    }

    /// The script `ssh`, over the image's own where it has one.
    fn install_client(&self, tree: &OwnedFd) -> std::io::Result<()> {
        // By name it might be something else by now.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let ours = openat(tree, "ssh", flags, Mode::empty())?;
        let mount = DetachedMount::copy_of_descriptor(ours.as_fd())?;
        let path = Path::new("/usr/bin/ssh");
        let target = match with_rights_of(self.person, || self.root().ensure(path, Kind::File))? {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.root().ensure_in_layer(path, Kind::File, self.person)?
            }
            target => target?,
        };
        mount.attach(target.as_fd())
    }

    /// A file system in memory that belongs to the user.
    fn memory(&self, mode: u32) -> std::io::Result<DetachedMount> {
        let memory = FileSystem::open("tmpfs")?;
        memory.set("mode", format!("{mode:o}"))?;
        memory.set("uid", self.person.uid.to_string())?;
        memory.set("gid", self.person.gid.to_string())?;
        memory.set("size", "32m")?;
        memory.mount(Attributes::NO_SUID_NO_DEV)
    }

    fn write(
        &self,
        directory: &OwnedFd,
        name: &Path,
        (mode, content): (u32, &[u8]),
    ) -> std::io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let file = openat(directory, name, flags, mode)?;
        rustix::fs::fchmod(&file, mode)?;
        let (uid, gid) = (Uid::from_raw(self.person.uid), Gid::from_raw(self.person.gid));
        fchown(&file, Some(uid), Some(gid))?;
        File::from(file).write_all(content)
    }

    /// A directory in the container, made with the user's rights, or in the container's own layer.
    fn directory(&self, path: &Path) -> std::io::Result<OwnedFd> {
        match with_rights_of(self.person, || self.root().ensure(path, Kind::Directory))? {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                self.root().ensure_in_layer(path, Kind::Directory, self.person)
            }
            found => found,
        }
    }

    /// A directory of the container's own over `~/.ssh`, with copies of what is there.
    fn cover(&self, directory: &Path) -> std::io::Result<()> {
        let target = self.directory(directory)?;
        let files = with_rights_of(self.person, || copies(&target))?;
        let memory = self.memory(0o700)?;
        let tree = memory.as_fd().try_clone_to_owned()?;
        let mut authorized = Vec::new();
        for (name, mode, content) in files {
            if name == AUTHORIZED {
                authorized = content;
            } else {
                self.write(&tree, Path::new(&name), (mode, &content))?;
            }
        }
        end_line(&mut authorized);
        authorized.extend(self.authorized.as_bytes());
        self.write(&tree, Path::new(AUTHORIZED), (0o600, &authorized))?;
        memory.attach(target.as_fd())
    }

    /// The lines that are not there yet, added to the user's own file.
    fn add(&self, directory: &Path) -> std::io::Result<()> {
        let target = self.directory(directory)?;
        with_rights_of(self.person, || {
            let flags = OFlags::CREATE
                | OFlags::RDWR
                | OFlags::APPEND
                | OFlags::NOFOLLOW
                | OFlags::NONBLOCK
                | OFlags::CLOEXEC;
            let file = openat(&target, AUTHORIZED, flags, Mode::from_raw_mode(0o600))?;
            let mut file = File::from(file);
            let mut old = Vec::new();
            (&file).take(SIZE_MAX).read_to_end(&mut old)?;
            let known = String::from_utf8_lossy(&old).into_owned();
            let mut new = Vec::new();
            if !old.is_empty() && !old.ends_with(b"\n") {
                new.push(b'\n');
            }
            for line in self.authorized.lines() {
                if !known.lines().any(|known| known == line) {
                    new.extend(line.as_bytes());
                    new.push(b'\n');
                }
            }
            file.write_all(&new)
        })?
    }
}

fn end_line(text: &mut Vec<u8>) {
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
}

/// Name, mode and content of the regular files in a directory, as far as the caller may read them.
fn copies(directory: &OwnedFd) -> Vec<(String, u32, Vec<u8>)> {
    let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let mut found = Vec::new();
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    for name in entries.map(|entry| entry.file_name()).take(FILES_MAX) {
        let copied = copy(directory, &name);
        match (name.into_string(), copied) {
            (Ok(name), Ok(Some((mode, content)))) => found.push((name, mode, content)),
            (name, Err(error)) => log::debug!("{name:?} of ~/.ssh is not shown: {error}"),
            _ => {}
        }
    }
    found
}

fn copy(directory: &OwnedFd, name: &OsStr) -> std::io::Result<Option<(u32, Vec<u8>)>> {
    let found = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(directory, name, flags, Mode::empty())?);
    let mut content = Vec::new();
    file.take(SIZE_MAX).read_to_end(&mut content)?;
    Ok(Some((found.st_mode & 0o700, content)))
}
