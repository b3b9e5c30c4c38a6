//! Which configuration files are read, and what is read of them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::document::{self, FILE_SIZE_MAX};
use crate::error::ConfigError;
use crate::parse::{Author, Parsed, overlay};

/// The site's configuration, and all that the privileged shim reads.
pub const SYSTEM_CONFIG: &str = "/etc/sarus/sarus.json";

/// Reads the site's configuration at `path`, [`SYSTEM_CONFIG`] but in tests. A file that does not
/// exist sets nothing.
///
/// # Errors
///
/// The file cannot be read, or has a first offending key.
pub fn load_system(path: &Path) -> Result<Parsed, ConfigError> {
    let mut parsed = Parsed::default();
    load(&mut parsed, path, Author::Site)?;
    Ok(parsed)
}

/// Reads the site's configuration at `system`, then lays that of the user over it:
/// `sarus/sarus.json` below `config_home` (see [`config_home`]), unless that is another user's and
/// cannot be read. Never for a privileged run.
///
/// # Errors
///
/// One of the files cannot be read, or has a first offending key.
pub fn load_for_user(system: &Path, config_home: Option<&Path>) -> Result<Parsed, ConfigError> {
    let mut parsed = load_system(system)?;
    if let Some(home) = config_home {
        match load(&mut parsed, &home.join("sarus/sarus.json"), Author::User) {
            Err(ConfigError::Read { path, source })
                if source.kind() == io::ErrorKind::PermissionDenied && !is_own(home) =>
            {
                parsed.unread.push(path);
            }
            other => other?,
        }
    }
    Ok(parsed)
}

/// Whether a directory is the calling user's: after `su` the variable may lead to another's.
fn is_own(home: &Path) -> bool {
    let owner = |path: &Path| std::fs::metadata(path).map(|found| found.uid());
    matches!((owner(home), owner(Path::new("/proc/self"))), (Ok(home), Ok(own)) if home == own)
}

/// Where a user's configurations are, from the values of `XDG_CONFIG_HOME` and `HOME`; one that is
/// not absolute is no value, as the XDG base directory specification wants it.
pub fn config_home(xdg_config_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute = |value: &OsStr| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    xdg_config_home
        .and_then(absolute)
        .or_else(|| home.and_then(absolute).map(|home| home.join(".config")))
}

fn load(parsed: &mut Parsed, path: &Path, author: Author) -> Result<(), ConfigError> {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
    };
    let text = document::text(&bytes)
        .map_err(|fault| ConfigError::Invalid { path: path.to_owned(), fault })?;
    overlay(parsed, text, path, author)
}

/// The file's content up to just above the bound. Never waits, as for who writes into a FIFO.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let kind = file.metadata()?.file_type();
    if !kind.is_file() && !kind.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_SIZE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
