//! Messages of a hook, where the engine wants them.
//!
//! Annotations: `com.hooks.logging.level` (0 debug, 1 info, 2 warnings, 3 errors) and
//! `com.hooks.logging.stderrfd`, the descriptor that is the engine's standard error. A runtime may
//! have closed it for the hook but still hold it itself; else the hook's own standard error is what
//! the runtime shows when the hook fails.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::account::is_machines_root;
use crate::{Container, Failure};

struct Logger {
    name: String,
    engine: Option<Mutex<File>>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// From now on messages of the `log` crate go where the container's annotations say.
pub(crate) fn start(name: &str, container: &Container) {
    let level = match container.annotation("com.hooks.logging.level") {
        Some("0") => LevelFilter::Debug,
        Some("1") => LevelFilter::Info,
        Some("3") => LevelFilter::Error,
        _ => LevelFilter::Warn,
    };
    let number = container.annotation("com.hooks.logging.stderrfd");
    let number = number.and_then(|number| number.parse::<u32>().ok()).filter(|number| *number > 2);
    let engine = number.and_then(open).map(Mutex::new);
    let logger = LOGGER.get_or_init(|| Logger { name: name.to_owned(), engine });
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

/// The engine's standard error: the hook's own descriptor of that number, else that of the runtime
/// above, which may have started what starts the hook.
///
/// Copied, and not opened anew: the user may have given a descriptor for reading of a file that
/// only root writes. Where a security module forbids copies a hook without privilege opens it, which
/// the user could do as well.
fn open(number: u32) -> Option<File> {
    let parent = rustix::process::getppid();
    let processes = [Some(rustix::process::getpid()), parent, parent.and_then(parent_of)];
    let processes = processes.into_iter().flatten();
    let copied = processes.clone().find_map(|process| copy(process, number));
    if let Some(copied) = copied {
        return is_for_writing(&copied).then(|| File::from(copied));
    }
    if is_machines_root() {
        return None;
    }
    let mut paths =
        processes.map(|process| format!("/proc/{}/fd/{number}", process.as_raw_nonzero()));
    paths.find_map(|path| OpenOptions::new().append(true).open(path).ok())
}

/// The parent of a process, as this process numbers them. Where `/proc` does not, this process is in
/// a namespace of the container's, whose first process is the runtime still.
fn parent_of(process: Pid) -> Option<Pid> {
    if !crate::enter::proc_is_own() {
        return Some(Pid::INIT);
    }
    sarus_sys::process::parent(process.as_raw_pid()).and_then(Pid::from_raw)
}

/// A copy of a process's descriptor.
fn copy(process: Pid, number: u32) -> Option<OwnedFd> {
    let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
    let number = i32::try_from(number).ok()?;
    pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()
}

fn is_for_writing(descriptor: &OwnedFd) -> bool {
    let access = fcntl_getfl(descriptor).map(|flags| flags & OFlags::ACCMODE);
    matches!(access, Ok(OFlags::WRONLY | OFlags::RDWR))
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            self.write(&format!("{level}: hook {}: {}\n", self.name, record.args()));
        }
    }

    fn flush(&self) {}
}

impl Logger {
    fn write(&self, line: &str) {
        // Nothing is left to say it to where this fails.
        let _written = match &self.engine {
            Some(engine) => {
                engine.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
            }
            None => std::io::stderr().lock().write_all(line.as_bytes()),
        };
    }
}

/// Says an error on the hook's own standard error, which the runtime passes on; on the engine's
/// where the runtime (crun) gives hooks the null device.
pub(crate) fn complain(name: &str, failure: &Failure) {
    let line = format!("error: hook {name}: {failure}\n");
    match LOGGER.get().filter(|logger| logger.engine.is_some() && is_null(&std::io::stderr())) {
        Some(logger) => logger.write(&line),
        None => {
            let _nobody_hears_it = std::io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

fn is_null(stream: &impl AsFd) -> bool {
    let null = rustix::fs::makedev(1, 3);
    fstat(stream).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == null
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_descriptor_for_reading_does_not_become_one_for_writing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs_err::write(&path, "kept").unwrap();
        let reading = File::open(&path).unwrap();
        let number = u32::try_from(reading.as_raw_fd()).unwrap();
        assert!(open(number).is_none());
        let writing = File::options().append(true).open(&path).unwrap();
        let number = u32::try_from(writing.as_raw_fd()).unwrap();
        open(number).unwrap().write_all(b" and more").unwrap();
        assert_eq!(fs_err::read_to_string(&path).unwrap(), "kept and more");
    }
}
