//! The log: outside the container, opened as the container's user.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fcntl_setfl, fstat, openat, openat2};
use sarus_hook::{Failure, Person};

/// The root directory of the hook's caller.
pub(crate) fn outside() -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, "/", flags, Mode::empty())?)
}

/// The node's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Appends a line with the rights of `person`, who wrote the path: links lead where the person
/// may write, and a pipe or a device is refused.
pub(crate) fn append(
    outside: std::io::Result<OwnedFd>,
    person: &Person,
    path: &Path,
    line: &str,
) -> Result<(), Failure> {
    let failed = |cause: String| {
        let what = format!("cannot append a time stamp to `{}`", path.display());
        let hint = "`TIMESTAMP_HOOK_LOGFILE` names a file on the host that you may write";
        Failure::new(what).because(cause).hint(hint)
    };
    let outside = outside.map_err(|error| failed(error.to_string()))?;
    person.apart(|| write(&outside, path, line).map_err(|error| error.to_string()))?.map_err(failed)
}

fn write(outside: &OwnedFd, path: &Path, line: &str) -> std::io::Result<()> {
    // Never waits for a reader of a pipe.
    let waits_not = OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | waits_not;
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(outside, path, flags, Mode::from_raw_mode(0o644), how)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    fcntl_setfl(&file, OFlags::APPEND)?;
    // In one call, so that lines of several hooks do not mix.
    File::from(file).write_all(line.as_bytes())
}
