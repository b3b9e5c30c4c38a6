//! Messages of a hook, where the engine wants them.
//!
//! Annotations: `com.hooks.logging.level` (0 debug, 1 info, 2 warnings, 3 errors) and
//! `com.hooks.logging.stderrfd`, the descriptor that is the engine's standard error. A runtime may
//! have closed it for the hook but still hold it itself; else the hook's own standard error is what
//! the runtime shows when the hook fails.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

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
/// above. Duplicated and not opened anew: a pipe that another user made cannot be opened.
fn open(number: u32) -> Option<File> {
    let number = number.try_into().ok()?;
    let processes = [Some(rustix::process::getpid()), rustix::process::getppid()];
    processes.into_iter().flatten().find_map(|process| duplicate(process, number))
}

/// A descriptor of another process that may be written to.
fn duplicate(process: Pid, number: i32) -> Option<File> {
    let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
    let file = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
    let flags = rustix::fs::fcntl_getfl(&file).ok()?;
    flags.intersects(OFlags::WRONLY | OFlags::RDWR).then(|| file.into())
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

/// Says an error on the hook's own standard error, which the runtime passes on; crun gives hooks
/// none, so there it is said on crun's own. Sarus takes it from either and shows it as the run's error.
pub(crate) fn complain(name: &str, failure: &Failure) {
    let text = format!("error: hook {name}: {failure}\n");
    let above = rustix::process::getppid().filter(|_| is_null(std::io::stderr()));
    let above = above.and_then(|process| duplicate(process, 2));
    let _nobody_hears_it = match above {
        Some(mut file) => file.write_all(text.as_bytes()),
        None => std::io::stderr().lock().write_all(text.as_bytes()),
    };
}

/// Whether a descriptor is `/dev/null`.
fn is_null(descriptor: impl AsFd) -> bool {
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::fstat(descriptor).is_ok_and(|found| found.st_rdev == null)
}
